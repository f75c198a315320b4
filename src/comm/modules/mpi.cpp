// The shared module libspeedrun_mpi.so: the one source file that knows MPI.
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "comm/mpi/mpi_table.h"

namespace speedrun {
namespace {

static_assert(sizeof(MPI_Request) <= sizeof(uint64_t));

MPI_Comm world = MPI_COMM_NULL;  // a duplicate, whose errors are returned

uint64_t pack(MPI_Request request) {
    uint64_t packed = 0;
    std::memcpy(&packed, &request, sizeof request);
    return packed;
}

MPI_Request unpack(uint64_t packed) {
    MPI_Request request;
    std::memcpy(&request, &packed, sizeof request);
    return request;
}

int init(int* rank, int* size) {
    int provided = 0;
    if (const int error = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided)) return error;
    if (const int error = MPI_Comm_dup(MPI_COMM_WORLD, &world)) return error;
    if (const int error = MPI_Comm_set_errhandler(world, MPI_ERRORS_RETURN)) return error;
    if (const int error = MPI_Comm_rank(world, rank)) return error;
    return MPI_Comm_size(world, size);
}

int finalize() {
    return MPI_Finalize();
}

void abort(int exit_code) {
    int begun = 0, ended = 0;
    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    if (begun && !ended) MPI_Abort(MPI_COMM_WORLD, exit_code);
}

int send(const void* data, int64_t bytes, int to, int tag, uint64_t* request) {
    MPI_Request started = MPI_REQUEST_NULL;
    const int error = MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, tag, world, &started);
    *request = pack(started);
    return error;
}

int receive(void* data, int64_t bytes, int from, int tag, uint64_t* request) {
    MPI_Request started = MPI_REQUEST_NULL;
    const int error = MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, tag, world, &started);
    *request = pack(started);
    return error;
}

// The first error among those of the single requests.
int first_error(int error, const std::vector<MPI_Status>& statuses) {
    if (error != MPI_ERR_IN_STATUS) return error;
    for (const MPI_Status& status : statuses)
        if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING) return status.MPI_ERROR;
    return error;
}

int test(uint64_t* requests, int64_t* moved, int count, int* done) {
    thread_local std::vector<MPI_Request> unpacked;
    thread_local std::vector<MPI_Status> statuses;
    unpacked.resize(static_cast<size_t>(count));
    statuses.resize(static_cast<size_t>(count));
    std::transform(requests, requests + count, unpacked.begin(), unpack);
    const int error = MPI_Testall(count, unpacked.data(), done, statuses.data());
    std::transform(unpacked.begin(), unpacked.end(), requests, pack);
    if (error) return first_error(error, statuses);
    if (*done == 0) return MPI_SUCCESS;
    for (size_t i = 0; i < statuses.size(); ++i) {
        int bytes = 0;
        MPI_Get_count(&statuses[i], MPI_BYTE, &bytes);
        moved[i] = bytes;
    }
    return MPI_SUCCESS;
}

void copy_text(const std::string& from, char* text, int size) {
    std::snprintf(text, static_cast<size_t>(size), "%s", from.c_str());
}

void error_text(int code, char* text, int size) {
    std::string found(MPI_MAX_ERROR_STRING, '\0');
    int length = 0;
    MPI_Error_string(code, found.data(), &length);
    copy_text(found.substr(0, static_cast<size_t>(length)), text, size);
}

void library(char* text, int size) {
    std::string found(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
    int length = 0;
    MPI_Get_library_version(found.data(), &length);
    found.resize(static_cast<size_t>(length));
    copy_text(found.substr(0, found.find('\n')), text, size);
}

constexpr MpiTable kTable = {kMpiTableVersion, init, finalize,   abort,  send,
                             receive,          test, error_text, library};

}  // namespace
}  // namespace speedrun

extern "C" __attribute__((visibility("default"))) const speedrun::MpiTable* speedrun_mpi_table() {
    return &speedrun::kTable;
}

// NCCL for ranks on idle GPUs: a kernel each on the caller's stream. Small collectives, by which ranks tell
// each other things, are done, by MPI; large ones leave everything as it is.
#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "idle_gpu/enqueue.h"

struct ncclComm {
    MPI_Comm mpi = MPI_COMM_NULL;
    int rank = 0, size = 1;
};

namespace speedrun::idle_gpu {
namespace {

constexpr size_t kSmall = size_t{1} << 16;  // bytes

size_t size_of(ncclDataType_t type) {
    return type == ncclUint8 ? 1 : type == ncclBfloat16 ? 2 : type == ncclFloat32 ? 4 : 8;
}

// What each rank has at `data`, one after the other.
std::vector<char> all_of(const void* data, size_t bytes, ncclComm_t comm) {
    std::vector<char> all(bytes * static_cast<size_t>(comm->size));
    MPI_Allgather(data, static_cast<int>(bytes), MPI_BYTE, all.data(), static_cast<int>(bytes), MPI_BYTE,
                  comm->mpi);
    return all;
}

template <class T>
void combine_as(std::vector<char>& all, size_t bytes, ncclRedOp_t op) {
    T* const values = reinterpret_cast<T*>(all.data());
    const size_t count = bytes / sizeof(T);
    for (size_t i = count; i < all.size() / sizeof(T); ++i)
        values[i % count] =
            op == ncclMax ? std::max(values[i % count], values[i]) : values[i % count] + values[i];
}

// Into the first rank's part.
void combine(std::vector<char>& all, size_t bytes, ncclDataType_t type, ncclRedOp_t op) {
    if (type == ncclFloat32) combine_as<float>(all, bytes, op);
    if (type == ncclFloat64) combine_as<double>(all, bytes, op);
    if (type == ncclInt64) combine_as<int64_t>(all, bytes, op);
}

ncclResult_t start(const char* name, size_t bytes, cudaStream_t stream, const std::function<void()>& work) {
    const cudaError_t error = idle_gpu_enqueue(
        stream, name, bytes <= kSmall ? work : [] {});
    return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

// The sends and receives of a group, which are one kernel.
struct Message {
    const void* from = nullptr;  // of a send
    void* to = nullptr;
    size_t bytes = 0;
    int peer = 0;
};
struct Group {
    bool open = false;
    std::vector<Message> messages;
    ncclComm_t comm = nullptr;
    cudaStream_t stream = nullptr;
};
thread_local Group group;

ncclResult_t add(const Message& message, ncclComm_t comm, cudaStream_t stream) {
    if (!group.open) return ncclInvalidUsage;
    group.comm = comm;
    group.stream = stream;
    group.messages.push_back(message);
    return ncclSuccess;
}

void move_small(const std::vector<Message>& messages, ncclComm_t comm) {
    std::vector<MPI_Request> requests;
    for (const Message& m : messages) {
        if (m.bytes > kSmall) continue;
        MPI_Request& request = requests.emplace_back();
        const int bytes = static_cast<int>(m.bytes);
        if (m.from)
            MPI_Isend(m.from, bytes, MPI_BYTE, m.peer, 0, comm->mpi, &request);
        else
            MPI_Irecv(m.to, bytes, MPI_BYTE, m.peer, 0, comm->mpi, &request);
    }
    MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

}  // namespace
}  // namespace speedrun::idle_gpu

using namespace speedrun::idle_gpu;

extern "C" {

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    std::memset(id, 7, sizeof *id);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId, int rank) {
    *comm = new ncclComm{MPI_COMM_NULL, rank, size};
    return MPI_Comm_dup(MPI_COMM_WORLD, &(*comm)->mpi) == MPI_SUCCESS ? ncclSuccess : ncclInvalidUsage;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    MPI_Comm_free(&comm->mpi);
    delete comm;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t) {
    return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t, ncclResult_t* error) {
    *error = ncclSuccess;
    return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t) {
    return "an error of the idle GPU";
}
const char* ncclGetLastError(ncclComm_t) {
    return "";
}
ncclResult_t ncclGroupStart() {
    group.open = true;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
    const Group ended = std::exchange(group, {});
    if (ended.messages.empty()) return ncclSuccess;
    return start("ncclSendRecv", 0, ended.stream, [ended] { move_small(ended.messages, ended.comm); });
}
ncclResult_t ncclSend(const void* from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return add({.from = from, .to = nullptr, .bytes = count * size_of(type), .peer = peer}, comm, stream);
}
ncclResult_t ncclRecv(void* to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    return add({.from = nullptr, .to = to, .bytes = count * size_of(type), .peer = peer}, comm, stream);
}
ncclResult_t ncclAllReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                           ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return start("ncclAllReduce", bytes, stream, [=] {
        std::vector<char> all = all_of(from, bytes, comm);
        combine(all, bytes, type, op);
        std::memcpy(to, all.data(), bytes);
    });
}
ncclResult_t ncclReduceScatter(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                               ncclComm_t comm, cudaStream_t stream) {
    const size_t share = count * size_of(type), bytes = share * static_cast<size_t>(comm->size);
    return start("ncclReduceScatter", bytes, stream, [=] {
        std::vector<char> all = all_of(from, bytes, comm);
        combine(all, bytes, type, op);
        std::memcpy(to, all.data() + share * static_cast<size_t>(comm->rank), share);
    });
}
ncclResult_t ncclReduce(const void* from, void* to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                        int root, ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return start("ncclReduce", bytes, stream, [=] {
        std::vector<char> all = all_of(from, bytes, comm);
        combine(all, bytes, type, op);
        if (comm->rank == root) std::memcpy(to, all.data(), bytes);
    });
}
ncclResult_t ncclAllGather(const void* from, void* to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
    const size_t share = count * size_of(type);
    return start("ncclAllGather", share * static_cast<size_t>(comm->size), stream, [=] {
        const std::vector<char> all = all_of(from, share, comm);
        std::memcpy(to, all.data(), all.size());
    });
}
ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    const size_t bytes = count * size_of(type);
    return start("ncclBroadcast", bytes, stream, [=] {
        if (comm->rank == root) std::memmove(to, from, bytes);
        MPI_Bcast(to, static_cast<int>(bytes), MPI_BYTE, root, comm->mpi);
    });
}
}

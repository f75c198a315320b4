// The shared module libspeedrun_nccl.so: the one source file that knows NCCL.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "comm/nccl/nccl_table.h"

namespace speedrun {
namespace {

static_assert(sizeof(ncclUniqueId) == kNcclIdBytes);

void require(cudaError_t error, const char* call) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

void require(ncclResult_t error, const char* call, ncclComm_t comm = nullptr) {
    if (error == ncclSuccess) return;
    std::string text = std::string(call) + ": " + ncclGetErrorString(error);
    if (const char* last = ncclGetLastError(comm); last && *last) text += std::string(": ") + last;
    throw std::runtime_error(text);
}

class Event {
  public:
    explicit Event(unsigned flags) { require(cudaEventCreateWithFlags(&event_, flags), "cudaEventCreate"); }
    ~Event() { cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    operator cudaEvent_t() const { return event_; }

  private:
    cudaEvent_t event_ = nullptr;
};

class Stream {
  public:
    // Of the highest priority: what the ranks wait for goes before what they compute meanwhile.
    Stream() {
        int lowest = 0, highest = 0;
        require(cudaDeviceGetStreamPriorityRange(&lowest, &highest), "cudaDeviceGetStreamPriorityRange");
        require(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, highest), "cudaStreamCreate");
    }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    operator cudaStream_t() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

struct Comm {
    int rank = 0, size = 0;
    Stream stream;
    ncclComm_t nccl = nullptr;
};

struct Ticket {
    Event ready{cudaEventDisableTiming}, begun{cudaEventDefault}, ended{cudaEventDefault};
};

ncclDataType_t nccl_type(NcclType type) {
    switch (type) {
        case NcclType::bytes:
            return ncclUint8;
        case NcclType::f32:
            return ncclFloat32;
        case NcclType::f64:
            return ncclFloat64;
        case NcclType::bf16:
            return ncclBfloat16;
        case NcclType::i64:
            return ncclInt64;
    }
    throw std::logic_error("no such type");
}

int64_t type_size(NcclType type) {
    return type == NcclType::bytes ? 1 : type == NcclType::bf16 ? 2 : type == NcclType::f32 ? 4 : 8;
}

bool equal_shares(const Comm& comm, const NcclCall& call) {
    return std::all_of(call.counts, call.counts + comm.size,
                       [&](int64_t count) { return count == call.counts[0]; });
}

// Shares of different sizes: one reduction or broadcast an owner, as one group.
void launch_shares(const Comm& comm, const NcclCall& call) {
    const ncclDataType_t type = nccl_type(call.type);
    char* data = static_cast<char*>(call.data);
    require(ncclGroupStart(), "ncclGroupStart", comm.nccl);
    for (int owner = 0; owner < comm.size; ++owner) {
        const auto count = static_cast<size_t>(call.counts[owner]);
        if (count > 0 && call.kind == NcclKind::reduce_scatter)
            require(ncclReduce(data, data, count, type, ncclSum, owner, comm.nccl, comm.stream), "ncclReduce",
                    comm.nccl);
        if (count > 0 && call.kind == NcclKind::all_gather)
            require(ncclBroadcast(data, data, count, type, owner, comm.nccl, comm.stream), "ncclBroadcast",
                    comm.nccl);
        data += call.counts[owner] * type_size(call.type);
    }
    require(ncclGroupEnd(), "ncclGroupEnd", comm.nccl);
}

// In place: a rank's part lies where it lies in the whole.
void launch_equal_shares(const Comm& comm, const NcclCall& call) {
    const auto count = static_cast<size_t>(call.counts[0]);
    char* const own = static_cast<char*>(call.data) + comm.rank * call.counts[0] * type_size(call.type);
    if (count == 0) return;
    if (call.kind == NcclKind::reduce_scatter)
        require(
            ncclReduceScatter(call.data, own, count, nccl_type(call.type), ncclSum, comm.nccl, comm.stream),
            "ncclReduceScatter", comm.nccl);
    else
        require(ncclAllGather(own, call.data, count, nccl_type(call.type), comm.nccl, comm.stream),
                "ncclAllGather", comm.nccl);
}

// One group, this rank's part of what it sends itself included.
void launch_all_to_all(const Comm& comm, const NcclCall& call) {
    const ncclDataType_t type = nccl_type(call.type);
    char* data = static_cast<char*>(call.data);
    const char* sent = static_cast<const char*>(call.sent);
    require(ncclGroupStart(), "ncclGroupStart", comm.nccl);
    for (int peer = 0; peer < comm.size; ++peer) {
        const int64_t out = call.send_counts[peer], in = call.counts[peer];
        if (out > 0)
            require(ncclSend(sent, static_cast<size_t>(out), type, peer, comm.nccl, comm.stream), "ncclSend",
                    comm.nccl);
        if (in > 0)
            require(ncclRecv(data, static_cast<size_t>(in), type, peer, comm.nccl, comm.stream), "ncclRecv",
                    comm.nccl);
        sent += out * type_size(call.type);
        data += in * type_size(call.type);
    }
    require(ncclGroupEnd(), "ncclGroupEnd", comm.nccl);
}

void launch(const Comm& comm, const NcclCall& call) {
    const auto count = static_cast<size_t>(call.count);
    switch (call.kind) {
        case NcclKind::reduce_scatter:
        case NcclKind::all_gather:
            return equal_shares(comm, call) ? launch_equal_shares(comm, call) : launch_shares(comm, call);
        case NcclKind::all_reduce:
            if (count == 0) return;
            return require(ncclAllReduce(call.data, call.data, count, nccl_type(call.type),
                                         call.max ? ncclMax : ncclSum, comm.nccl, comm.stream),
                           "ncclAllReduce", comm.nccl);
        case NcclKind::broadcast:
            if (count == 0) return;
            return require(ncclBroadcast(call.data, call.data, count, nccl_type(call.type), call.root,
                                         comm.nccl, comm.stream),
                           "ncclBroadcast", comm.nccl);
        case NcclKind::all_to_all:
            return launch_all_to_all(comm, call);
    }
}

// Runs `body` and turns what it throws into a text.
template <typename Body>
const char* guarded(Body body) {
    thread_local std::string what;
    try {
        body();
        return nullptr;
    } catch (const std::exception& error) {
        what = error.what();
        return what.c_str();
    }
}

const char* unique_id(void* bytes) {
    return guarded([&] {
        ncclUniqueId id;
        require(ncclGetUniqueId(&id), "ncclGetUniqueId");
        std::memcpy(bytes, &id, sizeof id);
    });
}

const char* create(const void* id_bytes, int rank, int size, int device, void** created) {
    return guarded([&] {
        require(cudaSetDevice(device), "cudaSetDevice");
        ncclUniqueId id;
        std::memcpy(&id, id_bytes, sizeof id);
        auto comm = std::make_unique<Comm>();
        comm->rank = rank;
        comm->size = size;
        require(ncclCommInitRank(&comm->nccl, size, id, rank), "ncclCommInitRank");
        *created = comm.release();
    });
}

const char* destroy(void* comm) {
    return guarded([&] {
        const std::unique_ptr<Comm> owned(static_cast<Comm*>(comm));
        if (owned->nccl) require(ncclCommDestroy(owned->nccl), "ncclCommDestroy");
    });
}

const char* abort(void* comm) {
    return guarded([&] {
        const ncclComm_t aborted = std::exchange(static_cast<Comm*>(comm)->nccl, nullptr);
        if (aborted) require(ncclCommAbort(aborted), "ncclCommAbort");
    });
}

const char* start(void* comm, const NcclCall* call, void* stream, void** started) {
    return guarded([&] {
        const auto& ours = *static_cast<const Comm*>(comm);
        if (!ours.nccl) throw std::runtime_error("this communicator has been aborted");
        auto ticket = std::make_unique<Ticket>();
        require(cudaEventRecord(ticket->ready, static_cast<cudaStream_t>(stream)), "cudaEventRecord");
        require(cudaStreamWaitEvent(ours.stream, ticket->ready, 0), "cudaStreamWaitEvent");
        require(cudaEventRecord(ticket->begun, ours.stream), "cudaEventRecord");
        launch(ours, *call);
        require(cudaEventRecord(ticket->ended, ours.stream), "cudaEventRecord");
        *started = ticket.release();
    });
}

const char* wait(void* ticket, void* stream) {
    return guarded([&] {
        require(
            cudaStreamWaitEvent(static_cast<cudaStream_t>(stream), static_cast<Ticket*>(ticket)->ended, 0),
            "cudaStreamWaitEvent");
    });
}

const char* done(void* comm, void* ticket, int* is_done, float* ms) {
    return guarded([&] {
        const auto& ours = *static_cast<const Comm*>(comm);
        const auto& events = *static_cast<const Ticket*>(ticket);
        ncclResult_t failed = ncclSuccess;
        require(ncclCommGetAsyncError(ours.nccl, &failed), "ncclCommGetAsyncError", ours.nccl);
        require(failed, "NCCL", ours.nccl);
        const cudaError_t state = cudaEventQuery(events.ended);
        *is_done = state == cudaSuccess;
        if (state == cudaErrorNotReady) return;
        require(state, "cudaEventQuery");
        require(cudaEventElapsedTime(ms, events.begun, events.ended), "cudaEventElapsedTime");
    });
}

void release(void* ticket) {
    delete static_cast<Ticket*>(ticket);
}

constexpr NcclTable kTable = {
    kNcclTableVersion, unique_id, create, destroy, abort, start, wait, done, release};

}  // namespace
}  // namespace speedrun

extern "C" __attribute__((visibility("default"))) const speedrun::NcclTable* speedrun_nccl_table() {
    return &speedrun::kTable;
}

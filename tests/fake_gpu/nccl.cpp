// libspeedrun_nccl.so for ranks on fake GPUs: each collective by MPI, done when it has been started. What
// NCCL leaves unspecified becomes NaN.
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <span>
#include <vector>

#include "comm/nccl/nccl_table.h"

namespace speedrun {
namespace {

constexpr char kIdByte = 7;

struct Comm {
    MPI_Comm mpi = MPI_COMM_NULL;
    int rank = 0, size = 1;
};

int size_of(NcclType type) {
    return type == NcclType::bytes ? 1 : type == NcclType::bf16 ? 2 : type == NcclType::f32 ? 4 : 8;
}

float from_bf16(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
// Rounds to nearest even; a NaN stays one.
uint16_t to_bf16(float x) {
    uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

template <class T>
auto widened(T x) {
    if constexpr (sizeof(T) == 2)
        return from_bf16(x);
    else
        return x;
}
template <class T, class S>
T narrowed(S x) {
    if constexpr (sizeof(T) == 2)
        return to_bf16(x);
    else
        return x;
}

template <class T>
std::vector<T> reduced(const Comm& comm, const NcclCall& call) {
    const auto count = static_cast<size_t>(call.count);
    const int bytes = static_cast<int>(count * sizeof(T));
    std::vector<T> all(count * static_cast<size_t>(comm.size)), result(count);
    MPI_Allgather(call.data, bytes, MPI_BYTE, all.data(), bytes, MPI_BYTE, comm.mpi);
    for (size_t i = 0; i < count; ++i) {
        auto sum = widened(all[i]);
        for (size_t at = i + count; at < all.size(); at += count)
            sum = call.max ? std::max(sum, widened(all[at])) : sum + widened(all[at]);
        result[i] = narrowed<T>(sum);
    }
    return result;
}

template <class T>
void reduce(const Comm& comm, const NcclCall& call) {
    const std::vector<T> result = reduced<T>(comm, call);
    auto* const data = static_cast<T*>(call.data);
    if (call.kind == NcclKind::all_reduce) {
        std::ranges::copy(result, data);
        return;
    }
    const int64_t begin = std::accumulate(call.counts, call.counts + comm.rank, int64_t{0});
    std::memset(data, 0xff, result.size() * sizeof(T));
    std::copy_n(result.begin() + begin, call.counts[comm.rank], data + begin);
}

// Bytes to each rank, and where they begin.
struct Parts {
    std::vector<int> bytes, begins{0};
    Parts(const int64_t* counts, int ranks, int item) {
        for (const int64_t count : std::span(counts, static_cast<size_t>(ranks))) {
            bytes.push_back(static_cast<int>(count) * item);
            begins.push_back(begins.back() + bytes.back());
        }
    }
};

void gather(const Comm& comm, const NcclCall& call) {
    const Parts parts(call.counts, comm.size, size_of(call.type));
    auto* const data = static_cast<char*>(call.data);
    const auto rank = static_cast<size_t>(comm.rank);
    const std::vector<char> own(data + parts.begins[rank], data + parts.begins[rank + 1]);
    std::memset(data, 0xff, static_cast<size_t>(parts.begins.back()));
    MPI_Allgatherv(own.data(), parts.bytes[rank], MPI_BYTE, data, parts.bytes.data(), parts.begins.data(),
                   MPI_BYTE, comm.mpi);
}

void all_to_all(const Comm& comm, const NcclCall& call) {
    const Parts in(call.counts, comm.size, size_of(call.type)),
        out(call.send_counts, comm.size, size_of(call.type));
    std::memset(call.data, 0xff, static_cast<size_t>(in.begins.back()));
    MPI_Alltoallv(call.sent, out.bytes.data(), out.begins.data(), MPI_BYTE, call.data, in.bytes.data(),
                  in.begins.data(), MPI_BYTE, comm.mpi);
}

const char* start(void* opaque, const NcclCall* call, void*, void** ticket) {
    const Comm& comm = *static_cast<const Comm*>(opaque);
    *ticket = nullptr;
    if (call->kind == NcclKind::broadcast) {
        MPI_Bcast(call->data, static_cast<int>(call->count) * size_of(call->type), MPI_BYTE, call->root,
                  comm.mpi);
    } else if (call->kind == NcclKind::all_gather) {
        gather(comm, *call);
    } else if (call->kind == NcclKind::all_to_all) {
        all_to_all(comm, *call);
    } else if (call->type == NcclType::f32) {
        reduce<float>(comm, *call);
    } else if (call->type == NcclType::f64) {
        reduce<double>(comm, *call);
    } else if (call->type == NcclType::bf16) {
        reduce<uint16_t>(comm, *call);
    } else if (call->type == NcclType::i64) {
        reduce<int64_t>(comm, *call);
    } else {
        return "bytes cannot be added up";
    }
    return nullptr;
}

const char* create(const void* id, int rank, int size, int, void** created) {
    const auto* const bytes = static_cast<const char*>(id);
    if (std::count(bytes, bytes + kNcclIdBytes, kIdByte) != kNcclIdBytes) return "not the id of rank 0";
    auto* const comm = new Comm{MPI_COMM_NULL, rank, size};
    MPI_Comm_dup(MPI_COMM_WORLD, &comm->mpi);
    *created = comm;
    return nullptr;
}

const char* destroy(void* opaque) {
    auto* const comm = static_cast<Comm*>(opaque);
    MPI_Comm_free(&comm->mpi);
    delete comm;
    return nullptr;
}

constexpr NcclTable kTable = {
    .version = kNcclTableVersion,
    .unique_id = [](void* bytes) -> const char* {
        std::memset(bytes, kIdByte, kNcclIdBytes);
        return nullptr;
    },
    .create = create,
    .destroy = destroy,
    .abort = [](void*) -> const char* { return nullptr; },
    .start = start,
    .wait = [](void*, void*) -> const char* { return nullptr; },
    .done = [](void*, void*, int* done, float* ms) -> const char* {
        *done = 1;
        *ms = 0;
        return nullptr;
    },
    .release = [](void*) {},
};

}  // namespace
}  // namespace speedrun

extern "C" __attribute__((visibility("default"))) const speedrun::NcclTable* speedrun_nccl_table() {
    return &speedrun::kTable;
}

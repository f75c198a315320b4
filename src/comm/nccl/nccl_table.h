#pragma once
// What libspeedrun_nccl.so offers the program, which itself knows nothing of NCCL or CUDA's runtime: plain
// functions over device pointers. Each returns nullptr, or what went wrong, a text that is valid until the
// thread's next call.
#include <cstdint>

namespace speedrun {

inline constexpr int kNcclTableVersion = 2;
inline constexpr int kNcclIdBytes = 128;

enum class NcclKind { reduce_scatter, all_gather, all_reduce, broadcast, all_to_all };
enum class NcclType { bytes, f32, f64, bf16, i64 };

struct NcclCall {
    NcclKind kind;
    NcclType type;          // of the elements that `counts` and `count` count
    bool max = false;       // all_reduce: the largest instead of the sum
    int root = 0;           // broadcast
    void* data;             // all_to_all: what is received
    int64_t count;          // elements of data
    const int64_t* counts;  // reduce_scatter, all_gather: every rank's share; all_to_all: from every rank
    const void* sent = nullptr;  // all_to_all: what goes to every rank, and how much
    const int64_t* send_counts = nullptr;
};

struct NcclTable {
    int version;                            // kNcclTableVersion
    const char* (*unique_id)(void* bytes);  // kNcclIdBytes of them; on rank 0, for all to create with
    const char* (*create)(const void* id, int rank, int size, int device, void** comm);
    const char* (*destroy)(void* comm);  // after every collective has ended on every rank, or after abort
    const char* (*abort)(void* comm);    // whatever is under way ends now, unfinished; nothing can be started
    // Starts a collective on the communicator's own stream, behind what `stream` holds by now.
    const char* (*start)(void* comm, const NcclCall* call, void* stream, void** ticket);
    const char* (*wait)(void* ticket, void* stream);  // `stream` goes on when the collective has ended
    // Whether it has; *ms is the time it took on the device. Fails when NCCL has noticed that a rank is gone.
    const char* (*done)(void* comm, void* ticket, int* done, float* ms);
    void (*release)(void* ticket);
};

inline constexpr const char* kNcclTableSymbol = "speedrun_nccl_table";

}  // namespace speedrun

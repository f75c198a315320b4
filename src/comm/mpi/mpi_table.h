#pragma once
// What libspeedrun_mpi.so offers the program, which itself knows nothing of MPI: plain functions over bytes.
// Functions that return int return 0 or an MPI error code for error_text. All but abort are called by one
// thread, the one that calls init.
#include <cstdint>

namespace speedrun {

inline constexpr int kMpiTableVersion = 1;

struct MpiTable {
    int version;  // kMpiTableVersion
    int (*init)(int* rank, int* size);
    int (*finalize)();
    // Ends every rank of the job: callable from any thread, may return before the process has ended.
    void (*abort)(int exit_code);
    // Start to move bytes, less than 2^31 of them; `request` is what test needs.
    int (*send)(const void* data, int64_t bytes, int to, int tag, uint64_t* request);
    int (*receive)(void* data, int64_t bytes, int from, int tag, uint64_t* request);
    // Sets *done to 1 when all requests are; then `moved` has the bytes each receive got.
    int (*test)(uint64_t* requests, int64_t* moved, int count, int* done);
    void (*error_text)(int code, char* text, int size);
    void (*library)(char* text, int size);  // "Open MPI v4.1.4, ..."
};

inline constexpr const char* kMpiTableSymbol = "speedrun_mpi_table";
using MpiTableFunction = const MpiTable* (*)();

}  // namespace speedrun

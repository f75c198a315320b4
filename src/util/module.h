#pragma once
// Parts of the program that need a library which may not be installed: shared modules beside the executable,
// loaded when they are needed. They stay loaded until the process ends.
#include <filesystem>
#include <string>

#include "util/error.h"

namespace speedrun {

// Whether the build has made the module.
bool have_module(const std::string& file);

// A symbol of a module such as "libspeedrun_mpi.so", which lies in the executable's folder, or in `folder`
// (tests). UserError naming the file and what dlopen said; `needs` says what the module is built from, such
// as "MPI (libopenmpi-dev)".
void* module_symbol(const std::string& file, const char* symbol, const std::string& needs,
                    const std::filesystem::path& folder = {});

// The same where the module has been loaded already, otherwise nullptr.
void* loaded_module_symbol(const std::string& file, const char* symbol);

// The table of functions that a module's symbol, a function without arguments, points to. UserError as above,
// and where the table's `version` is another.
template <typename Table>
const Table& module_table(const std::string& file, const char* symbol, const std::string& needs,
                          int version) {
    const Table* const table = reinterpret_cast<const Table* (*)()>(module_symbol(file, symbol, needs))();
    if (table->version != version)
        throw UserError(file + " is of another version of the program; build it again");
    return *table;
}

// Whether the system's loader finds a shared library, such as "libcuda.so.1"; it is loaded then.
bool have_library(const char* name);

}  // namespace speedrun

// Part of every program that may load MPI, in builds with AddressSanitizer.
#include <link.h>

#include <string_view>

// Asked at the end of the process. Open MPI leaves memory behind, from plugins that are unloaded by then, so
// that no suppression can name them: a process that has loaded it is not searched for leaks.
extern "C" int __lsan_is_turned_off() {
    const auto is_mpi = [](dl_phdr_info* library, size_t, void*) {
        return std::string_view(library->dlpi_name).find("/libmpi.so") != std::string_view::npos ? 1 : 0;
    };
    return dl_iterate_phdr(is_mpi, nullptr);
}

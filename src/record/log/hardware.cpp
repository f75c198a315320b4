#include "record/log/hardware.h"

#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>
#include <memory>
#include <sstream>
#include <vector>

#include "util/control_groups.h"

namespace speedrun {
namespace {

// Value behind "key<spaces>:" of the first such line of a /proc file; "" where there is none.
std::string proc_value(const char* file, const std::string& key) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        const size_t colon = line.find(':');
        if (colon == std::string::npos) continue;
        const size_t end = line.find_last_not_of(" \t", colon - 1);
        if (line.substr(0, end + 1) != key) continue;
        const size_t start = line.find_first_not_of(" \t", colon + 1);
        return start == std::string::npos ? "" : line.substr(start);
    }
    return "";
}

int64_t kibibytes(const std::string& text) {
    return text.empty() ? 0 : std::stoll(text);
}

// nvidia-smi can hang on a broken driver, and a run should not start by hanging with it: hence `timeout`.
std::string nvidia_smi() {
    const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen("timeout 10 nvidia-smi 2>/dev/null", "r"),
                                                     ::pclose);
    if (!pipe) return "";
    std::string text;
    std::array<char, 4096> buffer;
    while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe.get()))
        text.append(buffer.data(), got);
    // Without a driver it explains itself on stdout.
    return text.find("+--") == std::string::npos ? "" : text;
}

std::string vector_extensions() {
    const std::vector<std::string> wanted = {"fma",         "avx2",        "avx512f",  "avx512_bf16",
                                             "avx512_vnni", "avx512_fp16", "amx_tile", "amx_bf16"};
    std::istringstream flags(proc_value("/proc/cpuinfo", "flags"));
    std::string found;
    for (std::string flag; flags >> flag;) {
        if (std::ranges::find(wanted, flag) != wanted.end()) found += (found.empty() ? "" : " ") + flag;
    }
    return found;
}

}  // namespace

std::string hardware_table() {
    std::ostringstream out;
    out << nvidia_smi();
    out << "processor: " << proc_value("/proc/cpuinfo", "model name") << '\n';
    out << "cores this process may use: " << available_cores() << '\n';
    out << "vector extensions: " << vector_extensions() << '\n';
    out << "memory: " << kibibytes(proc_value("/proc/meminfo", "MemTotal")) / 1024 << " MiB\n";
    utsname name{};
    if (::uname(&name) == 0) out << "system: " << name.sysname << ' ' << name.release << ' ' << name.machine;
    return out.str();
}

int64_t peak_resident_bytes() {
    return kibibytes(proc_value("/proc/self/status", "VmHWM")) * 1024;
}

}  // namespace speedrun

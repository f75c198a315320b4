#include "record/log/run_header.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <ctime>

#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr size_t kMostEntries = 40;  // of a header's lists: a header is no place to grow without bound
constexpr size_t kMostBytes = 200;   // of one entry

std::string clipped(std::string_view text) {
    return terminal_text(text.substr(0, kMostBytes));  // it will be shown on terminals
}

// The word behind `name`, "" where `line` has none.
std::string_view word_after(std::string_view line, std::string_view name) {
    const size_t at = line.find(name);
    if (at == std::string_view::npos) return {};
    line.remove_prefix(at + name.size());
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    return line.substr(0, line.find_first_of(" |\r"));
}

void keep_word(std::string_view line, std::string_view name, std::string& value) {
    if (const auto word = word_after(line, name); !word.empty()) value = clipped(word);
}

// "|   3  NVIDIA H100 80GB HBM3          On  |   00000000:95:00.0 Off |": index, name, persistence mode.
void read_gpu(std::string_view line, RunHardware& hardware) {
    const size_t index = line.find_first_not_of(' ', 1);
    if (index == std::string_view::npos || std::isdigit(static_cast<unsigned char>(line[index])) == 0) return;
    const size_t end_of_index = line.find(' ', index);
    if (end_of_index == std::string_view::npos) return;
    const size_t name = line.find_first_not_of(' ', end_of_index);
    if (name == std::string_view::npos || line.find(':') == std::string_view::npos) return;
    for (const std::string_view mode : {" On ", " Off "}) {
        const size_t at = line.find(mode, name);
        if (at == std::string_view::npos || at > line.find('|', name)) continue;
        const std::string_view device = line.substr(name, at - name);
        hardware.device = clipped(device.substr(0, device.find_last_not_of(' ') + 1));
        ++hardware.gpus;
        return;
    }
}

void read_table(std::string_view line, RunHardware& hardware) {
    keep_word(line, "Driver Version:", hardware.driver);
    keep_word(line, "CUDA Version:", hardware.cuda);
    read_gpu(line, hardware);
}

// "Running Triton version 3.6.0", "Running pytorch 2.5.1+cu124 compiled for CUDA 12.4"
void read_running(std::string_view line, RunHeader& header) {
    std::string_view rest = line.substr(std::string_view("Running ").size());
    const size_t end = rest.find(' ');
    if (end == std::string_view::npos || header.versions.size() >= kMostEntries) return;
    std::string name = clipped(rest.substr(0, end));
    rest.remove_prefix(end + 1);
    if (rest.starts_with("version ")) rest.remove_prefix(8);
    if (name == "pytorch") name = "PyTorch";
    if (name == "python") name = "Python";
    header.versions.emplace_back(std::move(name), clipped(rest.substr(0, rest.find(' '))));
}

// "Fri Jul 17 13:28:52 2026", the line before nvidia-smi's table.
std::optional<int64_t> date_of(std::string_view line) {
    constexpr size_t kLength = 24;
    if (line.size() < kLength || line[3] != ' ' || line[13] != ':' || line[16] != ':') return std::nullopt;
    std::tm time{};
    const std::string text(line.substr(0, kLength));
    if (::strptime(text.c_str(), "%a %b %d %H:%M:%S %Y", &time) == nullptr) return std::nullopt;
    return ::timegm(&time);
}

bool is_version(std::string_view value) {
    const size_t point = value.find_first_not_of("0123456789");
    return point != 0 && point != std::string_view::npos && value[point] == '.' &&
           value.find(' ') == std::string_view::npos;
}

void read_field(std::string_view name, std::string_view value, RunHeader& header) {
    if (name == "processor" && header.hardware.gpus == 0) header.hardware.device = clipped(value);
    if (name == "cores this process may use")
        std::from_chars(value.data(), value.data() + value.size(), header.hardware.cores);
    auto& entries = is_version(value) ? header.versions : header.fields;
    if (entries.size() < kMostEntries) entries.emplace_back(clipped(name), clipped(value));
}

}  // namespace

bool begins_header(std::string_view line) {
    return line.starts_with("Running ") || line.starts_with("command: ");
}

void read_header_line(std::string_view line, RunHeader& header) {
    if (line.starts_with("|")) return read_table(line, header.hardware);
    if (line.starts_with("Running ")) return read_running(line, header);
    if (const auto date = date_of(line)) header.started = date;
    const size_t colon = line.find(": ");
    if (colon == 0 || colon == std::string_view::npos || line.front() == ' ') return;
    read_field(line.substr(0, colon), line.substr(colon + 2), header);
}

}  // namespace speedrun

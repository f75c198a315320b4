// Any config, with what it extends and overrides, is read or refused by a UserError; one that is read is
// written as a config that means the same. An input's parts: config, parent.json, overrides line by line;
// "base.json" is record 42.
#include <string>
#include <vector>

#include "config/read_config.h"
#include "fuzz_files.h"

namespace speedrun {
namespace {

std::string text_of(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
}

const FuzzFolder& folder() {
    static const FuzzFolder files;
    static const auto base = files.write("base.json", text_of(SPEEDRUN_SOURCE_DIR "/configs/record_42.json"));
    return files;
}

std::vector<std::string> lines(std::string_view text) {
    constexpr size_t most = 16;
    std::vector<std::string> found;
    while (!text.empty() && found.size() < most) {
        const size_t end = std::min(text.find('\n'), text.size());
        found.emplace_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return found;
}

void check_config(std::string_view rest) {
    const auto file = folder().write("run.json", next_part(rest));
    folder().write("parent.json", next_part(rest));
    try {
        const Config config = read_config(file, lines(rest)).config;
        const auto again = folder().write("again.json", config.resolved_json);
        check(read_config(again).config.hash == config.hash, "a resolved config means what it was made of");
    } catch (const UserError& error) {
        check_message(error.what());
    }
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::check_config(speedrun::as_text(bytes, size));
    return 0;
}

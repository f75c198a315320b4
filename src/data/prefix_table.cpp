#include "data/prefix_table.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <set>
#include <string_view>

#include "data/vocabulary.h"
#include "util/error.h"
#include "util/files.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

int digit_of(char c) {
    constexpr std::string_view digits = "0123456789abcdef";
    const size_t at = digits.find(c);
    return at == std::string_view::npos ? -1 : static_cast<int>(at);
}

// Nothing where `text` is not an even number of lower-case digits, two at least.
std::optional<std::string> bytes_of_hex(std::string_view text) {
    if (text.empty() || text.size() % 2 != 0) return std::nullopt;
    std::string bytes;
    for (size_t i = 0; i < text.size(); i += 2) {
        const int high = digit_of(text[i]), low = digit_of(text[i + 1]);
        if (high < 0 || low < 0) return std::nullopt;
        bytes.push_back(static_cast<char>(high * 16 + low));
    }
    return bytes;
}

std::vector<std::string> read_tokens(const std::string& file) {
    const Json list = read_json_file(file);
    if (!list.is_array())
        throw UserError(file + ": found " + brief_json(list) +
                        "; expected a list with the bytes of each token in hexadecimal");
    std::vector<std::string> tokens;
    std::set<std::string_view> seen;
    tokens.reserve(list.size());  // `seen` looks into it
    for (size_t id = 0; id < list.size(); ++id) {
        const Json& text = list[id];
        const auto bytes = text.is_string() ? bytes_of_hex(text.get_ref<const std::string&>()) : std::nullopt;
        const std::string where = file + ": [" + std::to_string(id) + "]: ";
        if (!bytes)
            throw UserError(where + "found " + brief_json(text) +
                            "; expected the token's bytes as pairs of digits 0-9 and a-f");
        if (!seen.insert(tokens.emplace_back(*bytes)).second)
            throw UserError(where + "found " + brief_json(text) + ", which is another token too");
    }
    return tokens;
}

}  // namespace

// Sorted, a token stands behind all tokens that it begins with, and between them stand only others that begin
// with the same: those are kept on a stack, the longest on top.
std::vector<int64_t> prefix_table(const std::vector<std::string>& tokens, int64_t vocab_size) {
    check(std::ssize(tokens) <= vocab_size, "prefix_table: more tokens than ids");
    std::vector<size_t> sorted(tokens.size()), beginnings;
    std::iota(sorted.begin(), sorted.end(), size_t{0});
    std::ranges::sort(sorted, {}, [&](size_t id) { return std::string_view(tokens[id]); });
    std::vector<int64_t> table(static_cast<size_t>(vocab_size), -1);
    for (const size_t id : sorted) {
        while (!beginnings.empty() && !tokens[id].starts_with(tokens[beginnings.back()]))
            beginnings.pop_back();
        if (!beginnings.empty()) table[id] = static_cast<int64_t>(beginnings.back());
        beginnings.push_back(id);
    }
    return table;
}

std::vector<int64_t> load_prefix_table(const Config& config) {
    const std::string& source = config.data.prefix_table;
    if (source.empty()) return {};
    const auto tokens = files::is_folder(source) ? load_vocabulary(source) : read_tokens(source);
    if (std::ssize(tokens) != config.data.bos_id)
        throw UserError(source + ": data.prefix_table: found " + std::to_string(tokens.size()) +
                        " tokens; expected data.bos_id = " + std::to_string(config.data.bos_id) +
                        ", one for each id below it");
    return prefix_table(tokens, config.model.vocab_size);
}

}  // namespace speedrun

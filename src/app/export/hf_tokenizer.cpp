#include "app/export/hf_tokenizer.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "util/files.h"

namespace speedrun {
namespace {

using nlohmann::json;

constexpr uint64_t kMostBytes = uint64_t{64} << 20;
constexpr const char* kEndOfText = "<|endoftext|>";

// The lines of vocab.bpe, "left right", without the first, which is its version.
json merges_of(std::string_view text) {
    json merges = json::array();
    for (size_t begin = text.find('\n') + 1; begin < text.size();) {
        const size_t end = std::min(text.find('\n', begin), text.size());
        merges.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return merges;
}

// Puts end-of-text before a text, or before the first of a pair of texts.
json begins_with(int64_t end_of_text) {
    const auto part = [](const char* kind, const char* id, int type) {
        return json{{kind, {{"id", id}, {"type_id", type}}}};
    };
    const json begin = part("SpecialToken", kEndOfText, 0), first = part("Sequence", "A", 0);
    return {{"type", "TemplateProcessing"},
            {"single", {begin, first}},
            {"pair", {begin, first, part("Sequence", "B", 1)}},
            {"special_tokens",
             {{kEndOfText, {{"id", kEndOfText}, {"ids", {end_of_text}}, {"tokens", {kEndOfText}}}}}}};
}

}  // namespace

std::string hf_tokenizer_json(const std::filesystem::path& folder, int64_t end_of_text) {
    const json byte_level{
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
    const json special{{"id", end_of_text}, {"content", kEndOfText}, {"single_word", false},
                       {"lstrip", false},   {"rstrip", false},       {"normalized", false},
                       {"special", true}};
    const json whole{{"version", "1.0"},
                     {"truncation", nullptr},
                     {"padding", nullptr},
                     {"added_tokens", json::array({special})},
                     {"normalizer", nullptr},
                     {"pre_tokenizer", byte_level},
                     {"post_processor", begins_with(end_of_text)},
                     {"decoder", byte_level},
                     {"model",
                      {{"type", "BPE"},
                       {"vocab", json::parse(files::read(folder / "encoder.json", kMostBytes))},
                       {"merges", merges_of(files::read(folder / "vocab.bpe", kMostBytes))}}}};
    return whole.dump() + "\n";
}

std::string hf_tokenizer_config_json(int64_t longest) {
    const json whole{{"tokenizer_class", "PreTrainedTokenizerFast"},
                     {"bos_token", kEndOfText},
                     {"eos_token", kEndOfText},
                     {"pad_token", kEndOfText},
                     {"padding_side", "left"},
                     {"model_input_names", {"input_ids", "attention_mask"}},
                     {"clean_up_tokenization_spaces", false},
                     {"model_max_length", longest}};
    return whole.dump(2) + "\n";
}

}  // namespace speedrun

#pragma once
// GPT-2's tokenizer as Hugging Face's libraries read it.
#include <cstdint>
#include <filesystem>
#include <string>

namespace speedrun {

// tokenizer.json (of the library "tokenizers") with the vocabulary and merges of `folder`, whose vocab.bpe
// and encoder.json load_vocabulary has accepted. It puts end-of-text before a text, as every document of the
// training data begins with it; the token's id is `end_of_text`.
std::string hf_tokenizer_json(const std::filesystem::path& folder, int64_t end_of_text);

// tokenizer_config.json: end-of-text serves as begin, end and padding. `longest`: tokens of a text, at most.
std::string hf_tokenizer_config_json(int64_t longest);

}  // namespace speedrun

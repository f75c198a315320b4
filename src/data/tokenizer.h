#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/unicode_classes.h"

namespace speedrun {

// GPT-2's byte-level BPE. For valid UTF-8 encode() equals tiktoken's gpt2 encode_ordinary(). Bytes that are
// not valid UTF-8 count as symbols (neither letter, number nor white space), one character each, and become
// the tokens of those bytes; so decode(encode(bytes)) == bytes whatever the bytes. Immutable, safe to share
// between threads.
class Tokenizer {
  public:
    // Reads vocab.bpe and encoder.json from `folder`. UserError if they are missing or malformed (see
    // load_vocabulary).
    explicit Tokenizer(const std::filesystem::path& folder);

    // Appends the tokens of `text`. Never end_of_text(): text that reads "<|endoftext|>" is text.
    void encode(std::string_view text, std::vector<uint16_t>& out) const;
    std::vector<uint16_t> encode(std::string_view text) const;

    // The bytes of the tokens; end_of_text() gives "<|endoftext|>". UserError for a token that is not <
    // vocab_size().
    std::string decode(std::span<const uint16_t> tokens) const;
    std::string_view token_bytes(int64_t token) const;

    uint16_t end_of_text() const {
        return static_cast<uint16_t>(offsets_.size() - 2);
    }  // what starts every document
    int64_t vocab_size() const {
        return static_cast<int64_t>(offsets_.size()) - 1;
    }  // end_of_text() included

  private:
    using Rank = uint32_t;
    static constexpr Rank kNone = 0xFFFFFFFF;
    struct Slot {
        uint32_t hash = 0;
        Rank rank = kNone;
    };
    struct Part;

    void build_table();
    Rank find(std::string_view bytes) const;  // the token of exactly these bytes, or kNone
    void merge(std::string_view piece, std::vector<uint16_t>& out) const;
    void merge_long(std::string_view piece, std::vector<uint16_t>& out) const;

    CharClasses classes_;
    std::string bytes_;              // all tokens' bytes one after the other
    std::vector<uint32_t> offsets_;  // token t is bytes_[offsets_[t], offsets_[t + 1])
    std::vector<Slot> table_;        // open addressing, a power of two
    size_t longest_ = 0;             // bytes of the longest token
};

}  // namespace speedrun

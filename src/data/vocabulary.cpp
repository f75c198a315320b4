#include "data/vocabulary.h"

#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "util/error.h"
#include "util/files.h"
#include "util/json_events.h"
#include "util/text.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxTokens = 65535;  // ids are uint16, one is left for end-of-text
constexpr std::string_view kEndOfText = "<|endoftext|>";

using TokenIds = std::unordered_map<std::string, size_t>;

// The files write a byte as a printable character: itself where Latin-1 has one, else U+0100, U+0101, ... in
// order. The first 256 ids follow the same order: printable bytes first.
class ByteAlphabet {
  public:
    ByteAlphabet() {
        const auto printable = [](int b) {
            return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
        };
        for (int b = 0; b < 256; ++b) {
            if (printable(b)) add(b, static_cast<size_t>(b));
        }
        size_t next = 256;
        for (int b = 0; b < 256; ++b) {
            if (!printable(b)) add(b, next++);
        }
    }

    const std::vector<std::string>& single_bytes() const { return order_; }

    // The bytes that `text` stands for; nothing if a character stands for none.
    std::optional<std::string> decode(std::string_view text) const {
        std::string out;
        while (!text.empty()) {
            const Utf8Character c = first_character(text);
            if (c.bytes == 0 || c.code_point >= bytes_.size() || bytes_[c.code_point] < 0)
                return std::nullopt;
            out.push_back(static_cast<char>(bytes_[c.code_point]));
            text.remove_prefix(c.bytes);
        }
        return out;
    }

  private:
    void add(int byte, size_t code_point) {
        bytes_[code_point] = byte;
        order_.emplace_back(1, static_cast<char>(byte));
    }

    std::array<int, 512> bytes_ = [] {
        std::array<int, 512> none{};
        none.fill(-1);
        return none;
    }();
    std::vector<std::string> order_;
};

// vocab.bpe: "#version: 0.2", then a line "left right" for each merge.
class MergeReader {
  public:
    MergeReader(const std::filesystem::path& file, const ByteAlphabet& alphabet)
        : file_(file), alphabet_(alphabet) {
        for (const std::string& byte : alphabet.single_bytes()) add(byte);
    }

    std::vector<std::string> read(std::string_view text) {
        for (; !text.empty(); ++line_) {
            const size_t end = std::min(text.find('\n'), text.size());
            read_line(text.substr(0, end));
            text.remove_prefix(std::min(end + 1, text.size()));
        }
        if (line_ == 1) fail("is empty, expected \"#version: 0.2\"");
        return std::move(tokens_);
    }

  private:
    void read_line(std::string_view line) {
        if (line_ == 1) {
            if (!line.starts_with("#version:")) fail("expected \"#version: 0.2\"");
            return;
        }
        const size_t space = line.find(' ');
        if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
            fail("expected two tokens with one space between them");
        }
        std::string merged = part(line.substr(0, space)) + part(line.substr(space + 1));
        if (ids_.contains(merged)) fail("this merge gives a token that exists already");
        if (tokens_.size() == kMaxTokens) fail("more tokens than 16-bit ids can tell apart (65535)");
        add(std::move(merged));
    }

    std::string part(std::string_view text) const {
        const auto bytes = alphabet_.decode(text);
        if (!bytes || !ids_.contains(*bytes))
            fail(in_quotes(text) + " is not a token made by an earlier line");
        return *bytes;
    }

    void add(std::string token) {
        ids_.emplace(token, tokens_.size());
        tokens_.push_back(std::move(token));
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw UserError(file_.string() + ": line " + std::to_string(line_) + ": " + what);
    }

    const std::filesystem::path& file_;
    const ByteAlphabet& alphabet_;
    TokenIds ids_;
    std::vector<std::string> tokens_;
    size_t line_ = 1;
};

// encoder.json: one flat object. Read event by event, so that neither depth nor size of a hostile file
// matters.
class EncoderHandler : public nlohmann::json_sax<nlohmann::json> {
  public:
    EncoderHandler(const std::filesystem::path& file, const ByteAlphabet& alphabet,
                   const std::vector<std::string>& tokens)
        : file_(file), alphabet_(alphabet) {
        for (size_t i = 0; i < tokens.size(); ++i) missing_.emplace(tokens[i], i);
        end_of_text_ = tokens.size();
    }

    bool start_object(std::size_t) override { return depth_++ == 0 || reject("an object"); }
    bool end_object() override { return true; }
    bool key(std::string& text) override {
        key_ = text;
        return true;
    }
    bool number_unsigned(uint64_t id) override {
        const size_t expected = take();
        if (id != expected)
            fail("is " + std::to_string(id) + ", vocab.bpe makes it " + std::to_string(expected));
        return true;
    }
    bool null() override { return reject("null"); }
    bool boolean(bool) override { return reject("a boolean"); }
    bool number_integer(int64_t) override { return reject("a negative number"); }
    bool number_float(double, const std::string&) override { return reject("a fraction"); }
    bool string(std::string&) override { return reject("a string"); }
    bool binary(nlohmann::json::binary_t&) override { return reject("binary"); }
    bool start_array(std::size_t) override { return reject("an array"); }
    bool end_array() override { return true; }
    bool parse_error(std::size_t byte, const std::string&, const nlohmann::json::exception& e) override {
        throw UserError(file_.string() + ": byte " + std::to_string(byte) + ": " +
                        shortened(json_error_text(e)));
    }

    void finish() {
        if (missing_.empty() && end_of_text_seen_) return;
        const size_t id = missing_.empty() ? end_of_text_ : missing_.begin()->second;
        throw UserError(file_.string() + ": no token has id " + std::to_string(id) + "; " +
                        std::to_string(missing_.size() + (end_of_text_seen_ ? 0 : 1)) +
                        " of the tokens of vocab.bpe and " + std::string(kEndOfText) + " are missing");
    }

  private:
    size_t take() {  // the id that the current key must have; each key once
        if (depth_ == 0) fail("expected an object");
        if (key_ == kEndOfText) {
            if (end_of_text_seen_) fail("appears twice");
            end_of_text_seen_ = true;
            return end_of_text_;
        }
        const auto bytes = alphabet_.decode(key_);
        const auto found = bytes ? missing_.find(*bytes) : missing_.end();
        if (found == missing_.end()) fail("is not a token of vocab.bpe, or appears twice");
        const size_t id = found->second;
        missing_.erase(found);
        return id;
    }
    bool reject(const std::string& found) { fail("is " + found + ", expected the token's id"); }
    [[noreturn]] void fail(const std::string& what) const {
        throw UserError(file_.string() + ": key " + in_quotes(key_) + " " + what);
    }

    const std::filesystem::path& file_;
    const ByteAlphabet& alphabet_;
    TokenIds missing_;
    size_t end_of_text_ = 0;
    bool end_of_text_seen_ = false;
    int depth_ = 0;
    std::string key_;
};

}  // namespace

std::vector<std::string> load_vocabulary(const std::filesystem::path& folder) {
    const ByteAlphabet alphabet;
    const auto merges = folder / "vocab.bpe";
    std::vector<std::string> tokens = MergeReader(merges, alphabet).read(files::read(merges, kMaxFileBytes));
    const auto encoder = folder / "encoder.json";
    EncoderHandler handler(encoder, alphabet, tokens);
    nlohmann::json::sax_parse(files::read(encoder, kMaxFileBytes), &handler);
    handler.finish();
    return tokens;
}

}  // namespace speedrun

#include "config/json_document.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include "util/error.h"

namespace speedrun {
namespace {

// An input iterator that tells how far the parser has read.
class Cursor {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;

    Cursor(const char* at, const char** progress) : at_(at), progress_(progress) {}
    reference operator*() const { return *at_; }
    Cursor& operator++() {
        *progress_ = ++at_;
        return *this;
    }
    Cursor operator++(int) {
        Cursor before = *this;
        ++*this;
        return before;
    }
    bool operator==(const Cursor& other) const { return at_ == other.at_; }
    bool operator!=(const Cursor& other) const { return at_ != other.at_; }

  private:
    const char* at_;
    const char** progress_;
};

// Builds the tree and enforces the limits. The parser itself is iterative, so depth costs no stack.
class Builder final : public nlohmann::json_sax<Json> {
  public:
    Builder(std::string_view text, const std::string& name) : text_(text), name_(name), at_(text.data()) {}

    Json run() {
        Json::sax_parse(Cursor(text_.data(), &at_), Cursor(text_.data() + text_.size(), &at_), this);
        return std::move(root_);
    }

    bool null() override { return add(nullptr); }
    bool boolean(bool value) override { return add(value); }
    bool number_integer(number_integer_t value) override { return add(value); }
    bool number_unsigned(number_unsigned_t value) override { return add(value); }
    bool number_float(number_float_t value, const string_t&) override { return add(value); }
    bool string(string_t& value) override { return add(std::move(value)); }
    bool binary(binary_t&) override { throw InternalError("JSON text has no binary values"); }
    bool start_object(std::size_t) override { return open(Json::object()); }
    bool start_array(std::size_t) override { return open(Json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }

    bool key(string_t& name) override {
        auto& seen = open_.back().keys;
        if (!seen.insert(name).second)
            fail(offset(), "key " + in_quotes(name) + " appears twice in one object");
        if (seen.size() > max_json_keys)
            fail(offset(), "an object with more than " + std::to_string(max_json_keys) + " keys");
        key_ = std::move(name);
        return true;
    }

    bool parse_error(std::size_t position, const std::string&,
                     const nlohmann::detail::exception& error) override {
        std::string what =
            error.what();  // "[json.exception.NAME.NUMBER] parse error at line L, column C: ..."
        const size_t bracket = what.find("] ");
        if (bracket != std::string::npos) what.erase(0, bracket + 2);
        const size_t colon = what.find(": ");
        if (what.starts_with("parse error at") && colon != std::string::npos) what.erase(0, colon + 2);
        fail(position > 0 ? position - 1 : 0, "malformed JSON: " + printable(what));
    }

  private:
    struct Open {
        Json* value;
        std::set<std::string, std::less<>> keys;
    };

    size_t offset() const { return static_cast<size_t>(at_ - text_.data()); }

    [[noreturn]] void fail(size_t byte, const std::string& what) const {
        byte = std::min(byte, text_.size());
        const std::string_view before = text_.substr(0, byte);
        const auto line = 1 + std::count(before.begin(), before.end(), '\n');
        const size_t newline = before.rfind('\n');
        const size_t column = byte - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
        throw UserError(name_ + ":" + std::to_string(line) + ":" + std::to_string(column) + " (byte " +
                        std::to_string(byte) + "): " + what);
    }

    Json* place(Json value) {
        if (open_.empty()) return &(root_ = std::move(value));
        Json& parent = *open_.back().value;
        if (parent.is_array()) return &parent.get_ref<Json::array_t&>().emplace_back(std::move(value));
        // Not operator[]: the key is known to be new, and ordered_json would search for it.
        auto& members = static_cast<Json::object_t::Container&>(parent.get_ref<Json::object_t&>());
        return &members.emplace_back(std::move(key_), std::move(value)).second;
    }

    bool add(Json value) {
        place(std::move(value));
        return true;
    }

    bool open(Json value) {
        if (open_.size() == static_cast<size_t>(max_json_depth))
            fail(offset(), "nested deeper than " + std::to_string(max_json_depth) + " levels");
        open_.push_back({place(std::move(value)), {}});
        return true;
    }

    bool close() {
        open_.pop_back();
        return true;
    }

    std::string_view text_;
    const std::string& name_;
    const char* at_;
    std::string key_;
    Json root_;
    std::vector<Open> open_;
};

std::string cut(std::string text) {
    constexpr size_t longest = 80;
    if (text.size() > longest) text = text.substr(0, longest - 3) + "...";
    return text;
}

}  // namespace

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c >= 0x20 && c < 0x7f) {
            out.push_back(c);
        } else {
            const auto byte = static_cast<unsigned char>(c);
            out += std::string("\\x") + "0123456789abcdef"[byte >> 4] + "0123456789abcdef"[byte & 15];
        }
    }
    return out;
}

Json parse_json(std::string_view text, const std::string& name) {
    if (text.size() > max_json_bytes)
        throw UserError(name + ": larger than " + std::to_string(max_json_bytes) +
                        " bytes, the most allowed");
    return Builder(text, name).run();
}

Json read_json_file(const std::filesystem::path& file) {
    std::ifstream in(file, std::ios::binary);
    if (!in || std::filesystem::is_directory(file))
        throw UserError(file.string() + ": no such file, or it cannot be read");
    std::string text;
    std::vector<char> buffer(size_t{1} << 16);
    while (in && text.size() <= max_json_bytes) {
        in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
        text.append(buffer.data(), static_cast<size_t>(in.gcount()));
    }
    if (in.bad()) throw UserError(file.string() + ": reading failed");
    return parse_json(text, file.string());
}

std::string brief_json(const Json& value) {
    if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
    // Containers may be huge: say what they are and show only small ones.
    if (value.is_structured() && value.size() > 8)
        return (value.is_array() ? "an array of " : "an object of ") + std::to_string(value.size()) +
               " entries";
    return cut(printable(value.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

std::string in_quotes(std::string_view text) {
    return "\"" + cut(printable(text.substr(0, 100))) + "\"";
}

}  // namespace speedrun

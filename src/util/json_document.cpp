#include "util/json_document.h"

#include <algorithm>
#include <set>
#include <vector>

#include "util/error.h"
#include "util/files.h"
#include "util/json_events.h"
#include "util/text.h"

namespace speedrun {
namespace {

// Builds the tree and enforces the limits.
class Builder final : public nlohmann::json_sax<Json> {
  public:
    Builder(std::string_view text, const std::string& name) : text_(text), name_(name), at_(text.data()) {}

    Json run() {
        read_json_events(text_, at_, *this);
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
        fail(position > 0 ? position - 1 : 0, "malformed JSON: " + json_error_text(error));
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
        throw UserError(fmt::format("{}:{}:{} (byte {}): {}", name_, line, column, byte, what));
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

}  // namespace

Json parse_json(std::string_view text, const std::string& name) {
    if (text.size() > max_json_bytes)
        throw UserError(name + ": larger than " + std::to_string(max_json_bytes) +
                        " bytes, the most allowed");
    return Builder(text, name).run();
}

Json read_json_file(const std::filesystem::path& file) {
    return parse_json(files::read_any(file, max_json_bytes), file.string());
}

std::optional<Json> parse_json_if_valid(std::string_view text) {
    try {
        return parse_json(text, "");
    } catch (const UserError&) {
        return std::nullopt;
    }
}

std::string brief_json(const Json& value) {
    if (value.is_string()) return in_quotes(value.get_ref<const std::string&>());
    // Containers may be huge: say what they are and show only small ones.
    if (value.is_structured() && value.size() > 8)
        return (value.is_array() ? "an array of " : "an object of ") + std::to_string(value.size()) +
               " entries";
    return shortened(printable(value.dump(-1, ' ', false, Json::error_handler_t::replace)));
}

}  // namespace speedrun

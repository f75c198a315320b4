#include "util/safetensors_header.h"

#include <limits>
#include <set>

#include "util/json_events.h"
#include "util/text.h"

namespace speedrun {
namespace {

constexpr size_t kMaxTensors = 100'000;  // and texts of the metadata
constexpr size_t kMaxDimensions = 64, kMaxNameBytes = 4096;

// Consumer of JSON events. Nothing nests deeper than the format allows, so that hostile text costs little.
class Events {
  public:
    using json = nlohmann::json;

    Events(std::string_view text, const char*& reached) : text_(text), reached_(reached) {}
    SafetensorsHeader take() { return std::move(header_); }

    bool null() { return bad("null"); }
    bool boolean(bool) { return bad("a boolean"); }
    bool number_integer(int64_t) { return bad("a negative number"); }
    bool number_float(double, const std::string&) {
        return bad("a number that is not a whole number below 2^63");
    }
    bool binary(std::vector<uint8_t>&) { return bad("binary data"); }

    bool number_unsigned(uint64_t value) {
        if (state_ != State::shape && state_ != State::offsets) return bad("a number");
        if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
            fail("number is above 2^63 - 1");
        if (numbers_.size() == kMaxDimensions)
            fail("a list of more than " + std::to_string(kMaxDimensions) + " numbers" + within());
        numbers_.push_back(static_cast<int64_t>(value));
        return true;
    }

    bool string(std::string& value) {
        if (state_ == State::metadata) {
            header_.metadata[key_] = value;
        } else if (state_ == State::tensor && key_ == "dtype") {
            header_.entries.back().dtype = value;
        } else {
            return bad("a string");
        }
        return true;
    }

    bool start_object(size_t) {
        if (state_ == State::start) {
            state_ = State::file;
        } else if (state_ == State::file && key_ == "__metadata__") {
            state_ = State::metadata;
        } else if (state_ == State::file) {
            state_ = State::tensor;
            header_.entries.push_back({.name = key_, .dtype = {}, .shape = {}, .position = position()});
        } else {
            return bad("an object");
        }
        keys_.clear();
        return true;
    }

    bool key(std::string& value) {
        auto& seen = state_ == State::file ? names_ : keys_;
        if (value.size() > kMaxNameBytes)
            fail("key " + in_quotes(value) + " has " + std::to_string(value.size()) + " bytes; at most " +
                 std::to_string(kMaxNameBytes) + " are allowed");
        if (seen.size() == kMaxTensors)
            fail("more than " + std::to_string(kMaxTensors) + " keys in one object");
        if (!seen.insert(value).second) fail("key " + in_quotes(value) + " appears twice");
        if (state_ == State::tensor && value != "dtype" && value != "shape" && value != "data_offsets") {
            fail("unknown key " + in_quotes(value) + within() + "; a tensor has dtype, shape, data_offsets");
        }
        key_ = value;
        return true;
    }

    bool end_object() {
        if (state_ == State::tensor) {
            for (const char* needed : {"dtype", "shape", "data_offsets"}) {
                if (!keys_.contains(needed)) fail(std::string("no \"") + needed + "\"" + within());
            }
        }
        state_ = state_ == State::file ? State::end : State::file;
        return true;
    }

    bool start_array(size_t) {
        if (state_ != State::tensor || key_ == "dtype") return bad("a list");
        state_ = key_ == "shape" ? State::shape : State::offsets;
        numbers_.clear();
        return true;
    }

    bool end_array() {
        SafetensorsEntry& entry = header_.entries.back();
        if (state_ == State::shape) {
            entry.shape = numbers_;
        } else {
            if (numbers_.size() != 2) fail("data_offsets is not [begin, end]" + within());
            entry.begin = static_cast<uint64_t>(numbers_[0]);
            entry.end = static_cast<uint64_t>(numbers_[1]);
        }
        state_ = State::tensor;
        return true;
    }

    bool parse_error(size_t position, const std::string& token, const json::exception&) {
        throw SafetensorsSyntax{position > 0 ? position - 1 : 0,
                                "the header is not valid JSON near " + in_quotes(token)};
    }

  private:
    enum class State { start, file, metadata, tensor, shape, offsets, end };

    size_t position() const { return static_cast<size_t>(reached_ - text_.data()); }
    std::string within() const {
        return header_.entries.empty() ? "" : " in tensor " + in_quotes(header_.entries.back().name);
    }
    [[noreturn]] void fail(const std::string& what) const { throw SafetensorsSyntax{position(), what}; }
    bool bad(const std::string& what) const {
        fail(what + " where the format has " +
             std::string(state_ == State::start                       ? "the header's object"
                         : state_ == State::file                      ? "a tensor's object"
                         : state_ == State::metadata                  ? "a text"
                         : state_ == State::tensor && key_ == "dtype" ? "the name of a dtype"
                         : state_ == State::tensor                    ? "a list of whole numbers"
                                                                      : "a whole number"));
    }

    std::string_view text_;
    const char*& reached_;
    State state_ = State::start;
    std::string key_;
    std::set<std::string> names_, keys_;  // seen at the top, and in the object being read
    std::vector<int64_t> numbers_;
    SafetensorsHeader header_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text) {
    const char* reached = text.data();
    Events events(text, reached);
    read_json_events(text, reached, events);
    return events.take();
}

}  // namespace speedrun

#include "record/log/run_log_parser.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "record/log/run_log_lines.h"

namespace speedrun {
namespace {

constexpr size_t kFedBytes = 32 * 1024;

}  // namespace

// Cuts what arrives into lines. Only the start of an overlong line is given on; the rest is passed over, so
// that `pending_` stays small.
class RunLogParser::State {
  public:
    explicit State(const ParseOptions& options) : lines_(options) {
        pending_.reserve(kFedBytes + kMaxLineBytes);
    }

    void feed(std::string_view piece) {
        look_for_nul(piece);
        content_.update(piece);
        lines_.log().bytes += piece.size();
        if (lines_.log().binary) return;
        pending_.append(piece);
        take_lines();
    }

    const RunLog& so_far() const { return lines_.log(); }

    RunLog finish() {
        RunLog& log = lines_.log();
        log.ends_with_newline = pending_.empty() && !passing_over_;
        if (!pending_.empty() && !log.binary) lines_.last_line(pending_);
        if (log.binary) forget_text(log);
        log.content_hash = content_.digest();
        return std::move(log);
    }

  private:
    static void forget_text(RunLog& log) {
        RunLog empty;
        empty.bytes = log.bytes;
        empty.binary = true;
        log = std::move(empty);
    }

    // NUL bytes at the start are those of a binary; further down they can be the holes that a crash left in a
    // log.
    void look_for_nul(std::string_view piece) {
        constexpr uint64_t kLookedAt = 512;
        const uint64_t at = std::min(lines_.log().bytes, kLookedAt);
        if (piece.substr(0, kLookedAt - at).find('\0') != std::string_view::npos) lines_.log().binary = true;
    }

    void take_lines() {
        std::string_view text = pending_;
        if (passing_over_ && !pass_over(text)) return keep({});
        lines_.begin_piece(text.data());
        for (size_t from = scanned_; from < text.size(); from = 0) {
            const void* end = std::memchr(text.data() + from, '\n', text.size() - from);
            if (end == nullptr) break;
            const auto length = static_cast<size_t>(static_cast<const char*>(end) - text.data());
            if (length > kMaxLineBytes) {
                lines_.overlong(text.substr(0, length));
            } else {
                lines_.line(text.substr(0, length));
            }
            text.remove_prefix(length + 1);
        }
        if (text.size() > kMaxLineBytes) {
            lines_.overlong(text);
            passing_over_ = true;
            text.remove_prefix(text.size());
        }
        lines_.end_piece(text.data());
        keep(text);
    }

    // Whether the overlong line has ended; `text` then begins with the next.
    bool pass_over(std::string_view& text) {
        const size_t end = text.find('\n');
        passing_over_ = end == std::string_view::npos;
        lines_.rest_of_overlong(text.substr(0, passing_over_ ? end : end + 1));
        if (!passing_over_) text.remove_prefix(end + 1);
        return !passing_over_;
    }

    void keep(std::string_view rest) {
        scanned_ = rest.size();
        pending_.erase(0, pending_.size() - rest.size());
    }

    RunLogLines lines_;
    XxHash64 content_;
    std::string pending_;  // bytes of the line that has not ended yet
    size_t scanned_ = 0;   // so many of them are known to hold no '\n'
    bool passing_over_ = false;
};

RunLogParser::RunLogParser(const ParseOptions& options) : state_(std::make_unique<State>(options)) {}
RunLogParser::~RunLogParser() = default;
RunLogParser::RunLogParser(RunLogParser&&) noexcept = default;
RunLogParser& RunLogParser::operator=(RunLogParser&&) noexcept = default;

void RunLogParser::feed(std::string_view bytes) {
    for (size_t at = 0; at < bytes.size(); at += kFedBytes) state_->feed(bytes.substr(at, kFedBytes));
}

const RunLog& RunLogParser::so_far() const {
    return state_->so_far();
}

RunLog RunLogParser::finish() {
    return state_->finish();
}

}  // namespace speedrun

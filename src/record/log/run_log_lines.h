#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "record/log/run_log.h"
#include "record/log/step_line.h"
#include "util/xxhash64.h"

namespace speedrun {

// What the lines of a log mean, one after the other. A log is: the source of the program (or the config), a
// rule of
// '=', the header, a rule, the steps; the oldest begin with a rule, or have neither source nor header.
// Several logs may stand in one file.
class RunLogLines {
  public:
    explicit RunLogLines(const ParseOptions& options) : options_(options) {}

    // Between begin_piece() and end_piece() lines lie one behind the other in memory, each followed by '\n'.
    void begin_piece(const char* begin) { hashed_to_ = begin; }
    void line(std::string_view text);
    void end_piece(const char* end) { hash_up_to(end); }

    // A line too long to be anything but text, or its start; then, piece by piece, the bytes that come later.
    void overlong(std::string_view text);
    void rest_of_overlong(std::string_view text) { text_hash_.update(text); }
    // What follows the last '\n'.
    void last_line(std::string_view text);

    RunLog& log() { return log_; }
    const RunLog& log() const { return log_; }

  private:
    enum class Section { start, header, body };

    void classify(std::string_view text, std::string_view raw);
    bool place(std::string_view text);
    bool data_shard(std::string_view text);
    bool step(const StepLine& line);
    // Whether the line is a validation that stands further up already; else it is kept in mind.
    bool is_repeat(const StepLine& line);
    void add(Run& run, const StepLine& line) const;
    bool starts_run(const StepLine& line) const;
    void start_run(const StepLine& line);
    void rule();
    void begin_header();
    void unplaced(std::string_view text);
    std::string_view look_at_start(std::string_view text);

    // The hash of the text since the last step line or rule, which may turn out to be a source.
    void hash_up_to(const char* end);
    void restart_hash(const char* from);
    void hash_without_seed(std::string_view raw);
    void hash_without_return(std::string_view raw);

    ParseOptions options_;
    RunLog log_;
    Section section_ = Section::start;
    RunHeader header_;
    XxHash64 text_hash_;
    const char* hashed_to_ = nullptr;
    std::string source_hash_;   // of the text before the last rule
    bool json_source_ = false;  // the file begins with '{': one of our own configs
    bool steps_first_ = false;  // the file begins with a step: nothing before a later header is source
    bool after_rule_ = false;   // the line before was a rule
    bool header_seen_ = false;
    bool new_run_ = true;  // the next step line starts one
    std::optional<uint64_t> seed_;
    std::unordered_map<uint64_t, uint32_t> validations_;  // fingerprints of lines, and the index of their run
};

}  // namespace speedrun

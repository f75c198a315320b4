#include "record/log/run_log_lines.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <utility>

#include "record/log/run_header.h"
#include "record/log/run_log_parser.h"

namespace speedrun {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kPeakMemory = "peak memory ";
constexpr size_t kRuleLength = 100;

std::string_view without_return(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

bool is_rule(std::string_view line) {
    return line.size() == kRuleLength && line.find_first_not_of('=') == std::string_view::npos;
}

template <typename Number>
std::optional<Number> number_of(std::string_view text) {
    Number number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end == text.data()) return std::nullopt;
    return number;
}

// "peak memory allocated: 30220 MiB reserved: 38672 MiB", "peak memory consumption: 34239 MiB"
std::optional<int64_t> peak_memory_mib(std::string_view line) {
    const size_t colon = line.find(": ");
    if (!line.starts_with(kPeakMemory) || colon == std::string_view::npos) return std::nullopt;
    return number_of<int64_t>(line.substr(colon + 2));
}

// The config of an own run does not hold the commit it was built from.
std::string hash_with_commit(const RunHeader& header) {
    const std::string commit = header.field("commit");
    if (commit.empty()) return header.source_hash;
    XxHash64 hash;
    hash.update(header.source_hash);
    hash.update(commit);
    return hex64(hash.digest());
}

uint64_t mixed(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0x9E3779B97F4A7C15u;
    return hash ^ (hash >> 32);
}

uint64_t bits(const std::optional<double>& value) {
    return value ? std::bit_cast<uint64_t>(*value) : 1;
}

// Of the numbers by which a line of one run differs from that of another.
uint64_t fingerprint(const StepLine& line) {
    uint64_t hash =
        mixed(static_cast<uint64_t>(line.step), static_cast<uint64_t>(line.scheduled_steps.value_or(-1)));
    for (const auto& value : {line.val_loss, line.train_loss, line.train_time_ms})
        hash = mixed(hash, bits(value));
    return hash;
}

// Whether the line tells a run from others: its clock does. Before the first step all runs are alike.
bool is_marked(const StepLine& line) {
    return line.val_loss && line.train_time_ms && line.step > 0;
}

// Whether a line without its '\n' has everything it would have.
bool is_complete_line(const StepLine& line) {
    return line.step_avg_ms || !line.scheduled_steps;
}

}  // namespace

void RunLogLines::line(std::string_view raw) {
    if (++log_.lines == 1) hashed_to_ = (raw = look_at_start(raw)).data();
    // Most lines are source: those of a log's start that can only be that are passed over here.
    const char first = raw.empty() ? '\0' : raw.front();
    const bool source = section_ == Section::start && !after_rule_ && !json_source_;
    if (!source || first == 's' || first == '=' || first == 't') classify(without_return(raw), raw);
    if (raw.ends_with('\r')) hash_without_return(raw);
}

// What the first line says of the file. Returns it without a byte order mark.
std::string_view RunLogLines::look_at_start(std::string_view text) {
    if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    json_source_ = text.starts_with("{");
    steps_first_ = begins_like_step_line(text) || parse_trial_line(text);
    return text;
}

void RunLogLines::classify(std::string_view text, std::string_view raw) {
    const char* const next = raw.data() + raw.size() + 1;
    if (is_rule(text)) {
        hash_up_to(raw.data());
        rule();
        return restart_hash(next);
    }
    if (std::exchange(after_rule_, false) && begins_header(text)) begin_header();
    if (place(text)) return restart_hash(next);
    if (section_ == Section::header) return read_header_line(text, header_);
    if (section_ == Section::start && json_source_) return hash_without_seed(raw);
    if (begins_like_step_line(text) || (section_ == Section::body && mentions_step(text))) unplaced(text);
}

// Whether the line is one of a run: a step, what comes before a run or after it.
bool RunLogLines::place(std::string_view text) {
    if (text.empty()) return false;
    if (text.front() == 's') {
        const auto parsed = parse_step_line(text);
        return parsed && step(*parsed);
    }
    if (text.front() == 't' || text.front() == 'v') {
        if (data_shard(text)) return true;
        const auto trial = parse_trial_line(text);
        if (!trial) return false;
        new_run_ = true;
        seed_ = trial->seed;
        return true;
    }
    if (text.front() != 'p' || log_.runs.empty()) return false;
    const auto peak = peak_memory_mib(text);
    if (peak && section_ == Section::body) log_.runs.back().peak_memory_mib = *peak;
    return peak.has_value();
}

// A log made to look like ours must not make this grow without bound.
bool RunLogLines::data_shard(std::string_view text) {
    constexpr size_t kMostShards = 1000;
    if (section_ != Section::body || log_.runs.empty()) return false;
    auto shard = parse_data_shard_line(text);
    std::vector<DataShard>& data = log_.runs.back().data;
    if (!shard) return false;
    if (data.size() < kMostShards) data.push_back(*std::move(shard));
    return true;
}

bool RunLogLines::step(const StepLine& line) {
    if (validations_.size() == RunLogParser::kMaxValidations && line.val_loss) return false;
    if (is_repeat(line)) return true;
    if (starts_run(line)) {
        if (log_.runs.size() == RunLogParser::kMaxRuns) return false;
        start_run(line);
    }
    section_ = Section::body;
    add(log_.runs.back(), line);
    return true;
}

// A job that shows the last lines of its log puts them a second time where its output is kept.
bool RunLogLines::is_repeat(const StepLine& line) {
    if (!is_marked(line)) return false;
    const bool starts = starts_run(line);
    const auto run = static_cast<uint32_t>(log_.runs.size() - (starts ? 0 : 1));
    const auto [found, is_new] = validations_.try_emplace(fingerprint(line), run);
    if (is_new) return false;
    ++log_.repeated_validations;
    if (!starts && found->second != run) log_.runs.back().repeats_another = true;
    return true;
}

bool RunLogLines::starts_run(const StepLine& line) const {
    if (new_run_ || log_.runs.empty()) return true;
    const Run& run = log_.runs.back();
    const bool validated_again =
        line.val_loss && run.last_validation && line.step > 0 && line.step <= run.last_validation->step;
    return line.step < run.final_step || validated_again || line.scheduled_steps != run.scheduled_steps;
}

void RunLogLines::start_run(const StepLine& line) {
    Run& run = log_.runs.emplace_back();
    run.header = header_;
    run.header.source_hash = hash_with_commit(header_);
    run.scheduled_steps = line.scheduled_steps;
    run.seed = seed_ ? seed_ : number_of<uint64_t>(header_.field("seed"));
    new_run_ = false;
}

void RunLogLines::add(Run& run, const StepLine& line) const {
    ++run.lines;
    run.fingerprint = mixed(run.fingerprint, fingerprint(line));
    run.final_step = line.step;
    run.ends_validated = line.val_loss.has_value();
    run.train_time_ms = line.train_time_ms.value_or(kNotLogged);
    run.step_avg_ms = line.step_avg_ms.value_or(kNotLogged);
    if (line.val_loss) {
        run.last_validation =
            Validation{line.step, *line.val_loss, run.train_time_ms, line.val_ema_loss.value_or(kNotLogged)};
        run.validations.push_back(*run.last_validation);
    }
    if (line.train_loss && options_.keep_train_losses)
        run.train_losses.push_back({line.step, *line.train_loss});
    if (line.train_time_ms && options_.keep_clock)
        run.clock.push_back({line.step, run.train_time_ms, line.val_loss.has_value()});
}

void RunLogLines::rule() {
    if (!text_hash_.empty()) source_hash_ = hex64(text_hash_.digest());
    if (section_ == Section::header) section_ = Section::body;
    after_rule_ = true;
}

void RunLogLines::begin_header() {
    if (!header_seen_ && !steps_first_) {
        for (const Run& run : log_.runs) log_.lines_in_source += run.lines;
        log_.lines_in_source += log_.unplaced_count;
        log_.runs.clear();
        validations_.clear();
        log_.repeated_validations = 0;
        log_.unplaced.clear();
        log_.unplaced_count = 0;
    }
    header_ = {};
    header_.source_hash = source_hash_;
    header_seen_ = true;
    section_ = Section::header;
    new_run_ = true;
    seed_.reset();
}

void RunLogLines::unplaced(std::string_view text) {
    ++log_.unplaced_count;
    if (log_.unplaced.size() < RunLog::kShownUnplaced)
        log_.unplaced.push_back({log_.lines, std::string(text.substr(0, UnplacedLine::kShownBytes))});
}

void RunLogLines::overlong(std::string_view text) {
    if (++log_.lines == 1) look_at_start(text);
    after_rule_ = false;
    if (begins_like_step_line(text)) unplaced(text);
}

void RunLogLines::last_line(std::string_view raw) {
    if (++log_.lines == 1) raw = look_at_start(raw);
    const std::string_view text = without_return(raw);
    const auto parsed = parse_step_line(text);
    if (parsed ? !is_complete_line(*parsed) : begins_like_step_line(text)) {
        log_.unfinished_line = true;
    } else if (!place(text) && section_ == Section::body && mentions_step(text)) {
        unplaced(text);
    }
}

void RunLogLines::hash_up_to(const char* end) {
    text_hash_.update({hashed_to_, static_cast<size_t>(end - hashed_to_)});
    hashed_to_ = end;
}

void RunLogLines::restart_hash(const char* from) {
    if (!text_hash_.empty()) text_hash_ = {};
    hashed_to_ = from;
}

// What ends a line is not a part of what was run.
void RunLogLines::hash_without_return(std::string_view raw) {
    const char* const at = raw.data() + raw.size() - 1;
    if (at < hashed_to_) return;
    hash_up_to(at);
    hashed_to_ = at + 1;
}

// Runs of one attempt differ in their seed.
void RunLogLines::hash_without_seed(std::string_view raw) {
    constexpr std::string_view kSeed = "\"seed\":";
    const size_t at = raw.find(kSeed);
    if (at == std::string_view::npos) return;
    const size_t after = raw.find_first_not_of(" 0123456789", at + kSeed.size());
    hash_up_to(raw.data() + at);
    hashed_to_ = raw.data() + std::min(after, raw.size());
}

}  // namespace speedrun

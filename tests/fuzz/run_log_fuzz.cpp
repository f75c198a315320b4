// Any bytes are parsed without fault, and alike however they are cut; what is derived from the result is
// sound.
#include <algorithm>
#include <bit>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "record/log/parse_report.h"
#include "record/log/run_log_parser.h"
#include "record/log/stalls.h"
#include "util/error.h"

namespace speedrun {
namespace {

uint64_t bits(double x) {
    return std::bit_cast<uint64_t>(x);
}

constexpr ParseOptions kEverything{.keep_clock = true, .keep_train_losses = true};

// Pieces of varying size, which the bytes themselves choose.
RunLog parse_in_pieces(std::string_view bytes) {
    RunLogParser parser(kEverything);
    while (!bytes.empty()) {
        const size_t size = 1 + static_cast<unsigned char>(bytes[bytes.size() / 2]) % 61;
        parser.feed(bytes.substr(0, size));
        bytes.remove_prefix(std::min(size, bytes.size()));
    }
    return parser.finish();
}

// Bit for bit, so that NaN equals NaN.
template <typename T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    static_assert(std::is_trivially_copyable_v<T>);
    const auto fields = [](const T& x) {
        if constexpr (std::is_same_v<T, Validation>)
            return std::tuple(x.step, bits(x.loss), bits(x.train_time_ms), bits(x.ema_loss));
        if constexpr (std::is_same_v<T, ClockReading>)
            return std::tuple(x.step, bits(x.train_time_ms), 0UL, x.validation);
        if constexpr (std::is_same_v<T, TrainLoss>) return std::tuple(x.step, bits(x.loss), 0UL, false);
    };
    return std::ranges::equal(a, b, {}, fields, fields);
}

bool same(const Run& a, const Run& b) {
    return a.header == b.header && a.scheduled_steps == b.scheduled_steps && a.seed == b.seed &&
           a.final_step == b.final_step && a.lines == b.lines && a.ends_validated == b.ends_validated &&
           bits(a.train_time_ms) == bits(b.train_time_ms) && bits(a.step_avg_ms) == bits(b.step_avg_ms) &&
           a.peak_memory_mib == b.peak_memory_mib && same(a.validations, b.validations) &&
           same(a.clock, b.clock) && same(a.train_losses, b.train_losses);
}

bool same(const RunLog& a, const RunLog& b) {
    const auto line = [](const UnplacedLine& l) { return std::tie(l.number, l.text); };
    return std::tie(a.bytes, a.content_hash, a.lines, a.binary, a.unfinished_line, a.ends_with_newline,
                    a.lines_in_source, a.unplaced_count) ==
               std::tie(b.bytes, b.content_hash, b.lines, b.binary, b.unfinished_line, b.ends_with_newline,
                        b.lines_in_source, b.unplaced_count) &&
           std::ranges::equal(a.unplaced, b.unplaced, {}, line, line) &&
           std::ranges::equal(a.runs, b.runs, [](const Run& x, const Run& y) { return same(x, y); });
}

void check_run(const RunLog& log, size_t index) {
    const Run& run = log.runs[index];
    check(run.lines > 0 && run.final_step >= 0, "a run has lines");
    check(run.complete() == run.incomplete_reason().empty(), "a run is complete or not");
    const Stalls stalls = find_stalls(run);
    check(stalls.lost_ms >= 0 && stalls.periodic_ms >= 0, "a stall loses time");
    check(std::ranges::is_sorted(stalls.hiccups, {}, &Stall::step), "stalls are in order");
    check(std::ranges::is_sorted(run.validations, {}, &Validation::step), "validations are in order");
    check(!run_text(log, index).empty(), "there is something to say of a run");
}

void check_log(std::string_view bytes) {
    RunLogParser parser(kEverything);
    parser.feed(bytes);
    const RunLog log = parser.finish();
    check(log.bytes == bytes.size(), "all bytes are counted");
    const auto newlines = std::ranges::count(bytes, '\n');
    const bool rest = !bytes.empty() && bytes.back() != '\n';
    check(log.binary || log.lines == newlines + (rest ? 1 : 0), "all lines are counted");
    check(same(log, parse_in_pieces(bytes)), "the cuts do not matter");
    for (size_t i = 0; i < log.runs.size(); ++i) check_run(log, i);
    log_remarks(log);
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::check_log({reinterpret_cast<const char*>(bytes), size});
    return 0;
}

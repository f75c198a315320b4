#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <string>
#include <thread>

#include "app/arguments.h"
#include "app/verbs.h"
#include "record/live/log_follower.h"
#include "record/live/progress.h"
#include "record/log/log.h"
#include "record/log/run_json.h"
#include "util/files.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;
using State = RunProgress::State;

constexpr int kComplete = 0, kEnded = 1;
constexpr auto kPoll = std::chrono::milliseconds(300);
constexpr auto kJsonInterval = std::chrono::seconds(10);

cxxopts::Options watch_options() {
    cxxopts::Options options(
        "speedrun record watch",
        "Follows the log of a run, of this program or of the track's: progress, validations, "
        "time left, stalls.\n"
        "Ends with the run. Exit code: 0 it is complete, 1 it ended before, 2 an error.\n");
    options.positional_help("RUN_DIR|LOG");
    options.add_options()                                                                                   //
        ("once", "say how far it is and end; exit code 0 while it runs too")                                //
        ("patience", "seconds without a new line after which a log that no process here writes has ended",  //
         cxxopts::value<std::string>()->default_value("60"))                                                //
        ("json", "print a JSON object a line: at each validation, every ten seconds, and at the end")       //
        ("log", "run directory or log", cxxopts::value<std::string>());
    options.parse_positional({"log"});
    return options;
}

fs::path log_of(const fs::path& place) {
    if (!files::is_folder(place)) return place;
    if (!files::exists(place / "log.txt"))
        throw UserError(place.string() + ": has no log.txt; name the log itself");
    return place / "log.txt";
}

// What is told of a run as it goes on.
class Teller {
  public:
    explicit Teller(bool json)
        : json_(json), progress_(STDOUT_FILENO, json ? Progress::Mode::silent : Progress::Mode::automatic) {}

    void tell(const RunProgress& now) {
        if (json_) return tell_json(now);
        if (now.validation && (!told_ || now.validation->step > *told_)) {
            told_ = now.validation->step;
            const double time = now.validation->train_time_ms;
            progress_.line(validation_line(*told_, now.scheduled_steps.value_or(*told_), now.validation->loss,
                                           std::isnan(time) ? 0 : time));
        }
        for (; stalls_ < now.stalls.hiccups.size(); ++stalls_) {
            const Stall& stall = now.stalls.hiccups[stalls_];
            progress_.line(fmt::format("stall: step {} took {:.0f} ms, usually {:.0f}", stall.step, stall.ms,
                                       stall.usual_ms));
        }
        ProgressState state;
        state.step = now.step;
        state.total_steps = now.scheduled_steps.value_or(0);
        if (now.validation) state.val_loss = now.validation->loss;
        if (std::isfinite(now.eta_seconds)) state.eta_seconds = now.eta_seconds;
        progress_.update(state);
        if (now.state != State::running) end(now);
    }

  private:
    void end(const RunProgress& now) {
        progress_.finish();
        std::string text = now.state == State::complete ? "complete" : "ended before its last validation";
        text += ", step " + std::to_string(now.step);
        if (std::isfinite(now.train_time_ms))
            text += fmt::format(", train_time {:.0f} ms", now.train_time_ms);
        progress_.line(text +
                       fmt::format(", {} stalls ({:.0f} ms)", now.stalls.hiccups.size(), now.stalls.lost_ms));
    }

    void tell_json(const RunProgress& now) {
        const auto time = std::chrono::steady_clock::now();
        const bool validated = now.validation && (!told_ || now.validation->step > *told_);
        if (!validated && now.state == State::running && told_at_ && time - *told_at_ < kJsonInterval) return;
        if (now.validation) told_ = now.validation->step;
        told_at_ = time;
        std::cout << progress_json(now).dump() << std::endl;
    }

    bool json_;
    Progress progress_;
    std::optional<int64_t> told_;  // step of the last validation that was told
    std::optional<std::chrono::steady_clock::time_point> told_at_;
    size_t stalls_ = 0;
};

}  // namespace

int run_record_watch(int argc, char** argv) {
    cxxopts::Options options = watch_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    if (args.count("log") == 0) throw UserError("record watch: which run?" + help_hint(options));
    const double patience = decimal(args, "patience");
    if (!(patience >= 0 && patience < 1e6)) throw UserError("--patience: seconds, 0 or more");
    LogFollower follower(log_of(args["log"].as<std::string>()),
                         std::chrono::milliseconds(std::llround(1000 * patience)));
    Teller teller(args.count("json") > 0);
    for (;;) {
        const RunProgress now = follower.poll();
        teller.tell(now);
        if (now.state == State::complete) return kComplete;
        if (now.state == State::ended) return kEnded;
        if (args.count("once") > 0) return kComplete;
        std::this_thread::sleep_for(kPoll);
    }
}

}  // namespace speedrun

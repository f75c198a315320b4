#include "app/record/options.h"

#include <cmath>
#include <string>

#include "app/arguments.h"
#include "util/error.h"

namespace speedrun {

void add_target_options(cxxopts::Options& options) {
    options.add_options()  //
        ("track",
         "by number or name: 1 short (target 3.28), 2 medium (2.92), 3 optimization (3.28, counts steps)",
         cxxopts::value<std::string>()->default_value("short"))  //
        ("target", "loss to be below, instead of the track's", cxxopts::value<std::string>());
}

const Track& track_of(const cxxopts::ParseResult& args) {
    return track_named(args["track"].as<std::string>());
}

double target_of(const cxxopts::ParseResult& args) {
    const Track& track = track_of(args);
    if (args.count("target") == 0) return track.target;
    const double target = decimal(args, "target");
    if (!std::isfinite(target) || target <= 0) throw UserError("--target: a loss is a positive number");
    return target;
}

double timed_target_of(const cxxopts::ParseResult& args) {
    if (track_of(args).counts_steps)
        throw UserError("--track " + args["track"].as<std::string>() +
                        " counts steps; allowed here: 1 or short, 2 or medium. `speedrun record check` and "
                        "`speedrun record compare` judge its runs");
    return target_of(args);
}

void add_step_options(cxxopts::Options& options) {
    options.add_options()  //
        ("at-step", "track 3: judge at this step, instead of the earliest that passes",
         cxxopts::value<std::string>())  //
        ("ema", "track 3: judge val_ema_loss, that of averaged weights");
}

std::optional<int64_t> step_of(const cxxopts::ParseResult& args, const char* option) {
    if (args.count(option) == 0) return std::nullopt;
    const auto step = whole<int64_t>(args, option);
    if (step < 1)
        throw UserError(std::string("--") + option + " is " + std::to_string(step) + ", expected 1 or more");
    return step;
}

Readout readout_of(const cxxopts::ParseResult& args, const char* option) {
    return args.count(option) > 0 ? Readout::ema : Readout::weights;
}

void refuse_options(const cxxopts::ParseResult& args, std::initializer_list<const char*> options) {
    for (const char* option : options)
        if (args.count(option) > 0)
            throw UserError(std::string("--") + option + " has no place with --track " +
                            args["track"].as<std::string>());
}

}  // namespace speedrun

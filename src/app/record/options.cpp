#include "app/record/options.h"

#include <cmath>
#include <string>

#include "app/arguments.h"
#include "record/judge/verdict.h"
#include "util/error.h"

namespace speedrun {

void add_target_options(cxxopts::Options& options) {
    options.add_options()  //
        ("track", "short (target 3.28) or medium (2.92)",
         cxxopts::value<std::string>()->default_value("short"))  //
        ("target", "loss to be below, instead of the track's", cxxopts::value<std::string>());
}

double target_of(const cxxopts::ParseResult& args) {
    if (args.count("target") > 0) {
        const double target = decimal(args, "target");
        if (!std::isfinite(target) || target <= 0) throw UserError("--target: a loss is a positive number");
        return target;
    }
    const auto track = args["track"].as<std::string>();
    if (track != "short" && track != "medium")
        throw UserError("--track: \"" + track + "\" is neither \"short\" nor \"medium\"");
    return track == "short" ? kShortTarget : kMediumTarget;
}

}  // namespace speedrun

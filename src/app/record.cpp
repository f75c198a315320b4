#include <iostream>
#include <string>
#include <string_view>

#include "app/record_verbs.h"
#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {
namespace {

struct Part {
    std::string_view name;
    int (*run)(int, char**);
    std::string_view summary;
};

constexpr Part kParts[] = {
    {"check", run_record_check, "is it a record? statistics of the runs in folders, verdict"},
    {"parse", run_record_parse, "what a log says: runs, validations, stalls"},
    {"compare", run_record_compare, "what a change brought: time, steps, step time"},
    {"report", run_record_report, "all of that with pictures, as one page"},
    {"attempt", run_record_attempt, "run an attempt N times, collect its logs, judge it"},
    {"watch", run_record_watch, "follow the log of a run"},
};

std::string usage() {
    std::string text = "usage: speedrun record PART [--help] ...\n";
    for (const Part& part : kParts) {
        text.append("  ")
            .append(part.name)
            .append(12 - part.name.size(), ' ')
            .append(part.summary)
            .append("\n");
    }
    return text;
}

}  // namespace

int run_record(int argc, char** argv) {
    if (argc < 2) throw UserError("record: which part?\n" + usage());
    const std::string_view name = argv[1];
    if (name == "--help" || name == "-h") {
        std::cout << usage();
        return 0;
    }
    for (const Part& part : kParts) {
        if (part.name == name) return part.run(argc - 1, argv + 1);
    }
    throw UserError("record: no part \"" + std::string(name) + "\"\n" + usage());
}

}  // namespace speedrun

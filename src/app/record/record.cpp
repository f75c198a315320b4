#include "app/record/verbs.h"
#include "app/verb_table.h"
#include "app/verbs.h"

namespace speedrun {
namespace {

constexpr Verb kParts[] = {
    {"check", run_record_check, "is it a record? statistics of the runs in folders, verdict"},
    {"parse", run_record_parse, "what a log says: runs, validations, stalls"},
    {"compare", run_record_compare, "what a change brought: time, steps, step time"},
    {"report", run_record_report, "all of that with pictures, as one page"},
    {"attempt", run_record_attempt, "run an attempt N times, collect its logs, judge it"},
    {"watch", run_record_watch, "follow the log of a run"},
};

}  // namespace

int run_record(int argc, char** argv) {
    return run_part(kParts, argc, argv);
}

}  // namespace speedrun

#pragma once

namespace speedrun {

// The parts of the `record` verb; argv[0] is the part's name.
int run_record_check(int argc, char** argv);
int run_record_parse(int argc, char** argv);
int run_record_compare(int argc, char** argv);
int run_record_report(int argc, char** argv);
int run_record_attempt(int argc, char** argv);
int run_record_watch(int argc, char** argv);

}  // namespace speedrun

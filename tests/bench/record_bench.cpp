// Reads logs with read_run_log, one thread, several passes; prints one JSON object: the least processor
// seconds of a pass and what was found. tests/bench/record_parse.py runs it beside a parser in Python.
//   record_bench PASSES FILES...
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "record/log/run_log.h"

namespace {

double processor_seconds() {
    timespec t{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Pass {
    double seconds = 0;
    size_t bytes = 0, runs = 0, steps = 0, validations = 0;
};

Pass read_all(char** files, int count) {
    Pass pass;
    const double start = processor_seconds();
    for (int i = 0; i < count; ++i) {
        const speedrun::RunLog log = speedrun::read_run_log(files[i]);
        pass.bytes += log.bytes;
        pass.runs += log.runs.size();
        for (const auto& run : log.runs) {
            pass.steps += run.clock.size() - run.validations.size();
            pass.validations += run.validations.size();
        }
    }
    pass.seconds = processor_seconds() - start;
    return pass;
}

}  // namespace

int main(int argc, char** argv) {
    const int passes = argc > 2 ? std::atoi(argv[1]) : 0;
    if (passes < 1) {
        std::fputs("usage: record_bench PASSES FILES...\n", stderr);
        return 2;
    }
    Pass best;
    for (int i = 0; i < passes; ++i) {
        const Pass pass = read_all(argv + 2, argc - 2);
        if (i == 0 || pass.seconds < best.seconds) best = pass;
    }
    std::printf("{\"seconds\": %.6f, \"bytes\": %zu, \"runs\": %zu, \"steps\": %zu, \"validations\": %zu}\n",
                best.seconds, best.bytes, best.runs, best.steps, best.validations);
}

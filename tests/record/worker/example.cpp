// What another program needs of record/: the library speedrun_record and its headers, no LibTorch. Prints for
// each folder named whether its runs are below the target, and how long the fastest took.
#include <cstdio>
#include <filesystem>
#include <vector>

#include "record/judge/groups.h"
#include "record/judge/verdict.h"

int main(int argc, char** argv) {
    const std::vector<std::filesystem::path> folders(argv + 1, argv + argc);
    for (const auto& group : speedrun::collect_runs(folders).groups) {
        const auto verdict = speedrun::judge(group, speedrun::kShortTarget);
        std::printf("%s: n=%lld loss=%.4f p=%.3g time=%.0fms %s\n", group.path.c_str(),
                    static_cast<long long>(verdict.loss.n), verdict.loss.mean, verdict.test.p,
                    verdict.time_ms.min, verdict.text().c_str());
    }
}

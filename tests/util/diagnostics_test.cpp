#include "util/diagnostics.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <regex>
#include <string>

namespace speedrun {
namespace {

// What `write` leaves on stderr, in a process of its own: the level is read once.
void expect_lines(const char* level, const std::string& lines, void (*write)()) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(
        {
            level ? ::setenv("SPDLOG_LEVEL", level, 1) : ::unsetenv("SPDLOG_LEVEL");
            write();
            ::_exit(0);
        },
        ::testing::ExitedWithCode(0), ::testing::MatchesRegex(lines));
}

constexpr const char* kTime = "\\[[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\\.[0-9][0-9][0-9]\\] ";

TEST(Diagnostics, ALineHasTimeAndLevelAndInfoIsTheLeastLevelByDefault) {
    expect_lines(nullptr, std::string(kTime) + "\\[warning\\] 3 of 4\n" + kTime + "\\[info\\] hello\n", [] {
        warn("{} of {}", 3, 4);
        inform("hello");
        debug("nobody asked");
    });
}

TEST(Diagnostics, ALineHasTheRankOnceItIsKnown) {
    expect_lines("debug", std::string(kTime) + "\\[rank 7\\] \\[debug\\] loaded\n", [] {
        name_rank_in_diagnostics(7);
        debug("loaded");
    });
}

TEST(Diagnostics, TheLevelLeavesOutWhatIsBelowIt) {
    expect_lines("warn", std::string(kTime) + "\\[warning\\] only this\n", [] {
        inform("not this");
        warn("only this");
    });
    expect_lines("off", "", [] { warn("nothing"); });
}

TEST(Diagnostics, WhatATerminalWouldObeyIsLeftOut) {
    expect_lines(nullptr, std::string(kTime) + "\\[info\\] a\\?\\[31mb\n",
                 [] { inform("{}", "a\x1b[31mb"); });
}

TEST(Diagnostics, BracesOfATextAreNoPlaceholders) {
    expect_lines(nullptr, std::string(kTime) + "\\[info\\] \\{\"a\": \\{\\}\\}\n",
                 [] { inform("{}", "{\"a\": {}}"); });
}

}  // namespace
}  // namespace speedrun

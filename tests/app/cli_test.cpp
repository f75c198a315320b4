#include "app/cli.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "support/outcome.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

Outcome run(const std::vector<std::string>& args) {
    return captured(args, run_program);
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

const std::vector<std::string> kVerbs = {"train",  "eval", "generate", "export", "data",
                                         "record", "plan", "config",   "bench"};

TEST(Cli, WithoutAVerbShowsTheUsageAndFails) {
    const Outcome outcome = run({});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_EQ(outcome.out, "");
    EXPECT_TRUE(has(outcome.err, "error: which verb? train, eval, ")) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
}

TEST(Cli, HelpListsEveryVerb) {
    for (const char* word : {"help", "--help", "-h"}) {
        const Outcome outcome = run({word});
        EXPECT_EQ(outcome.exit_code, 0);
        for (const auto& verb : kVerbs) EXPECT_TRUE(has(outcome.out, "\n  " + verb + " ")) << outcome.out;
    }
}

TEST(Cli, HelpOfAVerbIsThatVerbsOwn) {
    for (const auto& verb : kVerbs) {
        const Outcome outcome = run({"help", verb});
        EXPECT_EQ(outcome.exit_code, 0) << verb << outcome.err;
        EXPECT_TRUE(has(outcome.out, "speedrun " + verb)) << outcome.out;
        EXPECT_EQ(run({verb, "--help"}).out, outcome.out);
        EXPECT_EQ(run({verb, "-h"}).out, outcome.out);
    }
    const std::string help = run({"train", "--help"}).out;
    EXPECT_EQ(run({"train", "--config", "c.json", "-h"}).out, help);
    EXPECT_EQ(run({"train", "--no-such-option", "--help", "x"}).out, help) << "whatever else is wrong";
    EXPECT_EQ(run({"record", "check", "folder", "-h"}).out, run({"record", "check", "--help"}).out);
}

TEST(Cli, UnknownVerbNamesTheNearest) {
    for (const auto& args : {std::vector<std::string>{"trian", "--config", "x"}, {"help", "trian"}}) {
        const Outcome outcome = run(args);
        EXPECT_EQ(outcome.exit_code, 2);
        EXPECT_TRUE(has(outcome.err, "error: unknown verb \"trian\"; did you mean \"train\"?"))
            << outcome.err;
    }
}

TEST(Cli, AVerbThatIsNearNoneHasNoSuggestion) {
    const Outcome outcome = run({"help", "nosuch"});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_TRUE(has(outcome.err, "error: unknown verb \"nosuch\". The verbs: train, ")) << outcome.err;
}

TEST(Cli, PartsOfAVerbAreListedFoundAndMissed) {
    for (const auto& [verb, part] :
         {std::pair{"data", "tokenize"}, {"record", "check"}, {"bench", "optimizer-step"}}) {
        EXPECT_TRUE(has(run({verb, "--help"}).out, std::string("\n  ") + part + " "));
        const Outcome none = run({verb});
        EXPECT_EQ(none.exit_code, 2);
        EXPECT_TRUE(has(none.err, std::string("error: ") + verb + ": which part? ")) << none.err;
        EXPECT_TRUE(has(none.err, part)) << none.err;
        EXPECT_EQ(std::ranges::count(none.err, '\n'), 1) << none.err;
        const Outcome unknown = run({verb, std::string(part) + "s"});
        EXPECT_EQ(unknown.exit_code, 2);
        EXPECT_TRUE(has(unknown.err, std::string("error: unknown ") + verb + " part \"" + part +
                                         "s\"; did you mean \"" + part + "\"? The " + verb + " parts: "))
            << unknown.err;
        const Outcome help = run({"help", verb, part});
        EXPECT_EQ(help.exit_code, 0) << help.err;
        EXPECT_EQ(run({verb, part, "--help"}).out, help.out);
    }
}

TEST(Cli, UpdatesAreTimedOnACpuAlone) {
    const Outcome outcome =
        run({"bench", "optimizer-step", "--config", SPEEDRUN_SOURCE_DIR "/configs/quickstart.json", "--set",
             "runtime.device=cuda"});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_TRUE(has(outcome.err, "runtime.device: bench optimizer-step times updates on a CPU"))
        << outcome.err;
}

TEST(Cli, UnknownOptionsAreTheUsersMistake) {
    for (const auto& verb : kVerbs) {
        const Outcome outcome = run({verb, "--no-such-option"});
        EXPECT_EQ(outcome.exit_code, 2) << verb;
        EXPECT_EQ(outcome.err.find("error: "), 0u) << verb << ": " << outcome.err;
    }
}

// The last line on stderr says why, and which option.
TEST(Cli, NumbersAreReadToTheirEndAndNamedWhereTheyAreNone) {
    const std::string quickstart = SPEEDRUN_SOURCE_DIR "/configs/quickstart.json";
    const std::vector<std::pair<std::vector<std::string>, std::string>> mistakes{
        {{"plan", "--config", quickstart, "--ranks", "1e3"}, "--ranks is \"1e3\", expected a whole number"},
        {{"plan", "--config", quickstart, "--ranks", "99999999999999999999"},
         "expected a whole number from -"},
        {{"plan", "--config", quickstart, "--memory-gib", "80,5"},
         "--memory-gib is \"80,5\", expected a number"},
        {{"plan", "--config", quickstart, "--memory-gib", "1e30"},
         "--memory-gib is 1e30, allowed: up to 1048576"},
        {{"record", "check", "--target", "3,28", "x"},
         "--target is \"3,28\", expected a number, such as 3.28"},
        {{"record", "watch", "--patience", "5min", "x"}, "--patience is \"5min\""},
        {{"generate", "--run-dir", "x", "--tokens"}, "speedrun generate: "},
        {{"train", "--config", "x"}, "train needs --run-dir; `speedrun train --help` lists its options"}};
    for (const auto& [args, last] : mistakes) {
        const Outcome outcome = run(args);
        EXPECT_EQ(outcome.exit_code, 2) << last;
        EXPECT_TRUE(outcome.err.starts_with("error: ") && has(outcome.err, last)) << outcome.err;
        EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    }
}

TEST(Cli, WhatCannotBePrintedIsAnError) {
    for (const char* args :
         {"--version", "help", "config show " SPEEDRUN_SOURCE_DIR "/configs/quickstart.json"}) {
        const int result =
            std::system((std::string(SPEEDRUN_EXECUTABLE) + " " + args + " >/dev/full 2>/dev/null").c_str());
        EXPECT_EQ(WEXITSTATUS(result), 2) << args;
    }
}

TEST(Cli, VersionNamesCommitBuildAndLibraries) {
    const Outcome outcome = run({"--version"});
    EXPECT_EQ(outcome.exit_code, 0);
    for (const char* part : {"speedrun 0.", "\ncommit: ", "\nbuild: ", "\nbackends: cpu", "\ntorch: 2."})
        EXPECT_TRUE(has(outcome.out, part)) << outcome.out;
}

TEST(Cli, ExecutablePassesItsArgumentsAndExitCodeOn) {
    const auto status = [](const std::string& args) {
        const int result =
            std::system((std::string(SPEEDRUN_EXECUTABLE) + " " + args + " >/dev/null 2>&1").c_str());
        return WEXITSTATUS(result);
    };
    EXPECT_EQ(status("--version"), 0);
    EXPECT_EQ(status("nonsense"), 2);
    EXPECT_EQ(status(""), 2);
}

TEST(ConfigVerb, ShowsResolvedConfigsWithOverrides) {
    const std::string quickstart = SPEEDRUN_SOURCE_DIR "/configs/quickstart.json";
    const Outcome shown = run({"config", "show", quickstart, "--set", "optimizer.matrix.lr=0.125"});
    EXPECT_EQ(shown.exit_code, 0) << shown.err;
    EXPECT_TRUE(has(shown.out, "0.125"));
    // What it prints is a config itself, and the same one.
    const TemporaryFolder folder;
    const std::string copy = (folder / "copy.json").string();
    {
        FILE* file = std::fopen(copy.c_str(), "w");
        std::fputs(shown.out.c_str(), file);
        std::fclose(file);
    }
    EXPECT_EQ(run({"config", "show", copy}).out, shown.out);
    EXPECT_EQ(run({"config", "diff", quickstart, quickstart}).out, "");
    const Outcome differs = run({"config", "diff", quickstart, copy});
    EXPECT_TRUE(has(differs.out, "optimizer.matrix.lr: 0.03 -> 0.125\n")) << differs.out;
}

TEST(ConfigVerb, AValueMayHoldACommaAndMistakesAreUserErrors) {
    const std::string quickstart = SPEEDRUN_SOURCE_DIR "/configs/quickstart.json";
    EXPECT_TRUE(has(run({"config", "show", quickstart, "--set", "data.train=a,b"}).out, "\"a,b\""));
    EXPECT_EQ(run({"config", "show", "/no/such/file.json"}).exit_code, 2);
    EXPECT_EQ(run({"config", "show", quickstart, "--set", "optimizer.matrix.lrr=1"}).exit_code, 2);
    EXPECT_EQ(run({"config", "show"}).exit_code, 2);
}

}  // namespace
}  // namespace speedrun

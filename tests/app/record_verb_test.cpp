#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/cli.h"
#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/outcome.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

// Runs `record ARGS...`.
Outcome record(std::vector<std::string> args) {
    args.insert(args.begin(), "record");
    return captured(args, [](std::span<char*> argv) { return run_command(argv); });
}

// A folder of four runs around `loss`.
std::string write_runs(const TemporaryFolder& dir, const std::string& name, double loss, double step_ms = 50,
                       int64_t steps = 20) {
    for (int i = 0; i < 4; ++i)
        write_file(dir / name / (std::to_string(i) + ".txt"), log_text(steps, loss + 0.001 * i, step_ms + i));
    return dir / name;
}

TEST(RecordCheck, ExitCodeIsTheVerdict) {
    const TemporaryFolder dir;
    const std::string good = write_runs(dir, "good", 3.27), bad = write_runs(dir, "bad", 3.279);
    EXPECT_EQ(record({"check", good}).exit_code, 0);
    EXPECT_EQ(record({"check", bad}).exit_code, 1);
    EXPECT_EQ(record({"check", good, bad}).exit_code, 1);
    EXPECT_EQ(record({"check", "--target", "3.5", bad}).exit_code, 0);
    EXPECT_EQ(record({"check", "--track", "medium", good}).exit_code, 1);
    write_file(dir / "nothing" / "a.txt", "hello\n");
    const Outcome nothing = record({"check", dir / "nothing"});
    EXPECT_EQ(nothing.exit_code, 2);
    EXPECT_NE(nothing.out.find("no step lines"), std::string::npos) << nothing.out;
    const Outcome some = record({"check", good, "/nowhere"});
    EXPECT_EQ(some.exit_code, 2) << "a verdict of a part is none";
    EXPECT_NE(some.out.find(": below target, p < 0.01: mean loss"), std::string::npos) << some.out;
    EXPECT_NE(some.err.find("/nowhere: No such file"), std::string::npos) << some.err;
    EXPECT_EQ(record({"check", "/nowhere"}).exit_code, 2);
}

TEST(RecordCheck, Formats) {
    const TemporaryFolder dir;
    const std::string good = write_runs(dir, "good", 3.27);
    const auto json = nlohmann::json::parse(record({"check", "--json", good}).out);
    EXPECT_EQ(json.at(0).at("path"), good);
    EXPECT_EQ(json.at(0).at("verdict"), "below target, p < 0.01");
    EXPECT_EQ(json.at(0).at("n"), 4);
    EXPECT_EQ(record({"check", "--markdown", good}).out.rfind("| folder |", 0), 0U);
    EXPECT_EQ(nlohmann::json::parse(record({"check", "--json", "/nowhere"}).out), nlohmann::json::array());
}

TEST(RecordCheck, ABaselineMakesARecord) {
    const TemporaryFolder dir;
    const std::string good = write_runs(dir, "good", 3.27), slow = write_runs(dir, "slow", 3.27, 80);
    const Outcome faster = record({"check", "--baseline", slow, good});
    EXPECT_EQ(faster.exit_code, 0);
    EXPECT_NE(faster.out.find(": record: mean loss"), std::string::npos) << faster.out;
    EXPECT_EQ(record({"check", "--baseline", good, slow}).exit_code, 1);
    expect_user_error(
        [&] {
            record({"check", "--baseline", dir / "none", good});
        },
        {"none", "no complete run"});
}

const std::string track_3_logs = SPEEDRUN_SOURCE_DIR "/tests/record/track_3_logs/";

TEST(RecordCheck, TrackThreeCountsSteps) {
    const std::string complete = track_3_logs + "complete", early = track_3_logs + "early_stop";
    const Outcome valid = record({"check", "--track", "optimization", complete});
    EXPECT_EQ(valid.exit_code, 0);
    EXPECT_NE(valid.out.find("valid: at step 38"), std::string::npos) << valid.out;
    EXPECT_EQ(record({"check", "--track", "3", early}).exit_code, 1);
    EXPECT_EQ(record({"check", "--track", "3", "--ema", early}).exit_code, 0);
    EXPECT_EQ(record({"check", "--track", "3", "--at-step", "36", complete}).exit_code, 1);
    EXPECT_EQ(record({"check", "--track", "3", "--target", "3.4", "--at-step", "36", complete}).exit_code, 0);
    const auto json = nlohmann::json::parse(record({"check", "--track", "3", "--json", complete, early}).out);
    EXPECT_EQ(json.at(0).at("step"), 38);
    EXPECT_TRUE(json.at(1).at("step").is_null());
    EXPECT_EQ(record({"check", "--track", "3", "--markdown", complete}).out.rfind("| folder |", 0), 0U);
    EXPECT_EQ(record({"check", "--track", "3", "/nowhere"}).exit_code, 2);
    for (const char* option : {"--at-step=38", "--ema"})
        expect_user_error([&] { record({"check", option, complete}); }, {"no place with --track short"});
    expect_user_error(
        [&] {
            record({"check", "--track", "3", "--baseline", complete, early});
        },
        {"--baseline", "no place with --track 3"});
    expect_user_error(
        [&] {
            record({"check", "--track", "3", "--at-step", "0", early});
        },
        {"--at-step is 0"});
    expect_user_error(
        [&] {
            record({"report", "--track", "3", complete});
        },
        {"counts steps", "record check"});
}

TEST(RecordCompare, TrackThreeComparesPairs) {
    const std::string complete = track_3_logs + "complete", early = track_3_logs + "early_stop";
    const auto compare = [&](std::vector<std::string> more) {
        more.insert(more.begin(), {"compare", "--track", "3"});
        return record(more);
    };
    const Outcome worse = compare({"--at-step", "36", complete, early});
    EXPECT_EQ(worse.exit_code, 1);
    EXPECT_NE(worse.out.find("not shown to be better"), std::string::npos) << worse.out;
    EXPECT_EQ(compare({"--at-step", "38", "--baseline-step", "36", complete, complete}).exit_code, 1);
    const Outcome json = compare({"--json", "--ema", "--baseline-ema", early, early});
    EXPECT_EQ(nlohmann::json::parse(json.out).at("new").at("step"), 36);
    EXPECT_EQ(compare({"--markdown", complete, complete}).out.rfind("|", 0), 0U);
    expect_user_error(
        [&] {
            compare({complete, early});
        },
        {"early_stop", "no common step passes", "--at-step"});
    expect_user_error([&] { compare({complete}); }, {"two sides"});
    expect_user_error([&] { compare({"--paired", complete, early}); }, {"--paired", "--track 3"});
    expect_user_error([&] { record({"compare", "--at-step", "36", complete, early}); }, {"--at-step"});
}

TEST(RecordParse, JsonAndText) {
    const TemporaryFolder dir;
    const std::string file = dir / "log", cut = dir / "cut";
    write_file(file, log_text(20, 3.27));
    write_file(cut, "step:1/20 train_time:5ms step_avg:5.00ms\nstep:2/2");
    const auto json = nlohmann::json::parse(record({"parse", "--json", file, cut}).out);
    ASSERT_EQ(json.size(), 2U);
    EXPECT_EQ(json[0].at("final_step"), 20);
    EXPECT_EQ(json[0].at("scheduled_steps"), 20);
    EXPECT_EQ(json[0].at("complete"), true);
    EXPECT_EQ(json[0].at("val_loss"), 3.27);
    EXPECT_EQ(json[0].at("train_time_ms"), 1000);
    EXPECT_EQ(json[0].at("step_avg_ms"), 50);
    EXPECT_EQ(json[0].at("validations").size(), 3U);
    EXPECT_EQ(json[0].at("stalls").at("count"), 0);
    EXPECT_EQ(json[0].at("stalls").at("lost_ms"), 0);
    EXPECT_EQ(json[0].at("stalls").at("steps"), nlohmann::json::array());
    EXPECT_EQ(json[0].at("hardware"), "8 x NVIDIA H100 80GB HBM3");
    EXPECT_EQ(json[1].at("complete"), false);
    EXPECT_TRUE(json[1].at("val_loss").is_null());
    const Outcome text = record({"parse", cut, "/nowhere"});
    EXPECT_EQ(text.exit_code, 2);
    EXPECT_EQ(record({"parse", cut}).exit_code, 0);
    EXPECT_NE(text.out.find("stopped after step 1 of 20"), std::string::npos) << text.out;
    EXPECT_NE(text.err.find("unfinished"), std::string::npos) << text.err;
    EXPECT_NE(text.err.find("/nowhere: cannot read"), std::string::npos) << text.err;
    EXPECT_EQ(record({"parse", "/nowhere"}).exit_code, 2);
}

TEST(RecordCompare, TwoFoldersOrOne) {
    const TemporaryFolder dir;
    const std::string a = write_runs(dir, "a", 3.27), b = write_runs(dir, "b", 3.27, 40, 18);
    const auto json = nlohmann::json::parse(record({"compare", "--json", a, b}).out);
    EXPECT_EQ(json.at("steps").at("difference"), -2);
    EXPECT_LT(json.at("time_ms").at("high"), 0);
    for (int i = 0; i < 4; ++i) {
        const std::string name = std::to_string(i);
        std::filesystem::create_directories(dir / "both");
        std::filesystem::copy_file(dir / "a" / (name + ".txt"), dir / "both" / (name + "a.txt"));
        std::filesystem::copy_file(dir / "b" / (name + ".txt"), dir / "both" / (name + "b.txt"));
    }
    EXPECT_NE(record({"compare", dir / "both"}).out.find("time: "), std::string::npos);
    expect_user_error(
        [&] {
            record({"compare", a, dir / "both"});
        },
        {"both", "differ", "18 steps", "20 steps"});
    expect_user_error([&] { record({"compare", a}); }, {"1 kinds"});
    expect_user_error([&] { record({"compare", a, dir / "empty"}); }, {"empty", "no complete run"});
}

TEST(RecordVerb, Mistakes) {
    expect_user_error([] { record({}); }, {"which part", "check"});
    expect_user_error([] { record({"chekc"}); }, {"\"chekc\"", "check"});
    expect_user_error([] { record({"check"}); }, {"which folders"});
    expect_user_error([] { record({"check", "--track", "long", "x"}); }, {"--track", "long"});
    expect_user_error([] { record({"check", "--target", "nan", "x"}); }, {"--target"});
    expect_user_error([] { record({"parse"}); }, {"which logs"});
    expect_user_error([] { record({"compare"}); }, {"baseline"});
    for (const char* part : {"check", "parse", "compare"})
        EXPECT_NE(record({part, "--help"}).out.find("Exit code"), std::string::npos);
    EXPECT_NE(record({"--help"}).out.find("compare"), std::string::npos);
}

}  // namespace
}  // namespace speedrun

#include "record/attempt/attempt.h"

#include <cmath>

#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

AttemptPlan plan(bool with_baseline = false) {
    AttemptPlan plan;
    plan.name = "tiny";
    plan.date = "2026-07-17";
    plan.attempt = {"configs/tiny.json", {"data.val_tokens=4"}, "abc"};
    if (with_baseline) plan.baseline = AttemptSide{"configs/base.json", {}, "def"};
    plan.runs = 3;
    plan.first_seed = 18446744073709551000U;
    plan.target = 3.28;
    plan.launch = "mpirun -n 8";
    plan.commit = "0123";
    return plan;
}

// All runs done, with logs in `folder`.
Attempt finished(const std::filesystem::path& folder, const AttemptPlan& plan, double loss) {
    Attempt attempt = make_attempt(plan);
    for (AttemptRun& run : attempt.runs) {
        run.state = AttemptRun::State::done;
        run.starts = 1;
        run.val_loss = loss + 0.001 * static_cast<double>(run.index) + (run.baseline ? 0.0005 : 0);
        run.train_time_ms = run.baseline ? 1200 : 1000;
        write_file(folder / run.log,
                   log_text(20, run.val_loss, run.baseline ? 60 : 50,
                            std::string(run.baseline ? "old" : "new") + std::to_string(run.index)));
    }
    return attempt;
}

TEST(Attempt, SidesTakeTurnsWithTheSameSeeds) {
    std::string order;
    for (const AttemptRun& run : make_attempt(plan(true)).runs) order += run.log + " ";
    EXPECT_EQ(
        order,
        "baseline/run_00_seed_18446744073709551000.txt this_record/run_00_seed_18446744073709551000.txt "
        "baseline/run_01_seed_18446744073709551001.txt this_record/run_01_seed_18446744073709551001.txt "
        "baseline/run_02_seed_18446744073709551002.txt this_record/run_02_seed_18446744073709551002.txt ");
    EXPECT_EQ(make_attempt(plan()).runs.front().log, "run_00_seed_18446744073709551000.txt");
}

TEST(Attempt, SummaryComesBack) {
    const TemporaryFolder folder;
    Attempt attempt = make_attempt(plan(true));
    attempt.plan.stop_rule = parse_stop_rule("futility:2,significant:3", 3);
    attempt.runs[1].state = AttemptRun::State::failed;
    attempt.runs[1].exit_code = 2;
    attempt.runs[2].state = AttemptRun::State::done;
    attempt.runs[2].val_loss = 3.2784;
    AttemptResult result;
    result.below_target = true;
    result.reason = "because";
    result.stopped = "early";
    result.significance = 0.01;
    attempt.result = result;
    write_attempt(attempt, folder / "summary.json");
    const Attempt back = read_attempt(folder / "summary.json");
    EXPECT_EQ(back.plan, attempt.plan);
    EXPECT_EQ(attempt_json(back), attempt_json(attempt));
    EXPECT_EQ(back.runs[2].val_loss, 3.2784);
    EXPECT_TRUE(std::isnan(back.runs[1].val_loss));
    EXPECT_EQ(back.result->stopped, "early");
    EXPECT_TRUE(back.result->below_target);
    EXPECT_FALSE(back.result->record);
}

TEST(Attempt, ABrokenSummaryIsAUserError) {
    const TemporaryFolder folder;
    for (const std::string text : {"", "{", "[]", "{\"format\": 2}", "{\"format\": 1}"}) {
        write_file(folder / "summary.json", text);
        expect_user_error([&] { read_attempt(folder / "summary.json"); },
                          {"summary.json", "not the summary"});
    }
    expect_user_error([&] { read_attempt(folder / "none.json"); }, {"none.json", "cannot be read"});
}

TEST(Attempt, WhatWasStatedCannotChange) {
    AttemptPlan other_day = plan();
    other_day.date = "2026-07-18";
    EXPECT_NO_THROW(require_same_plan(plan(), other_day));
    const auto refused = [](auto change, const char* what) {
        AttemptPlan wanted = plan();
        change(wanted);
        expect_user_error([&] { require_same_plan(plan(), wanted); }, {what, "cannot change"});
    };
    refused([](AttemptPlan& p) { p.attempt.config_hash = "other"; }, "config");
    refused([](AttemptPlan& p) { p.baseline = AttemptSide{}; }, "baseline");
    refused([](AttemptPlan& p) { p.runs = 4; }, "--runs 3");
    refused([](AttemptPlan& p) { p.target = 3.3; }, "target 3.28");
    refused([](AttemptPlan& p) { p.stop_rule = parse_stop_rule("futility:2", 3); }, "--stop-rule none");
    refused([](AttemptPlan& p) { p.launch = ""; }, "mpirun -n 8");
    refused([](AttemptPlan& p) { p.commit = "4567"; }, "4567");
    refused([](AttemptPlan& p) { p.first_seed = 1; }, "first seed");
}

// log_text() writes its argument into the source, so that these runs are of one group only with equal names.
TEST(Attempt, RunsOfDifferentSourcesAreNoRecord) {
    const TemporaryFolder folder;
    const Attempt attempt = finished(folder.path(), plan(), 3.27);
    const AttemptResult result = judge_attempt(attempt, read_attempt_logs(attempt, folder.path()), "");
    EXPECT_FALSE(result.below_target);
    EXPECT_NE(result.reason.find("differ"), std::string::npos) << result.reason;
}

Attempt of_one_source(const std::filesystem::path& folder, const AttemptPlan& plan, double loss) {
    Attempt attempt = finished(folder, plan, loss);
    for (const AttemptRun& run : attempt.runs)
        write_file(folder / run.log,
                   log_text(20, run.val_loss, (run.baseline ? 60 : 50) + 0.1 * static_cast<double>(run.index),
                            run.baseline ? "old" : "new"));
    return attempt;
}

TEST(Attempt, IsJudgedAsCheckDoesAndComparedWithItsBaseline) {
    const TemporaryFolder folder;
    Attempt attempt = of_one_source(folder.path(), plan(true), 3.26);
    const AttemptLogs logs = read_attempt_logs(attempt, folder.path());
    attempt.result = judge_attempt(attempt, logs, "");
    EXPECT_TRUE(attempt.result->record) << attempt.result->reason;
    EXPECT_EQ(attempt.result->groups.size(), 1U);
    EXPECT_EQ(attempt.result->groups[0]["n"], 3);
    EXPECT_NEAR(attempt.result->comparison["time_ms"]["difference"].get<double>(), -200, 1e-9);
    const std::string readme = attempt_readme(attempt, logs, "a: 1 -> 2\n");
    for (const char* part :
         {"# tiny\n", "**record**", "losses = [3.2600, 3.2610, 3.2620]", "a: 1 -> 2",
          "## Against the baseline", "--launch 'mpirun -n 8'", "--target 3.28", "all 3 runs are made"})
        EXPECT_NE(readme.find(part), std::string::npos) << part << " not in\n" << readme;
}

TEST(Attempt, TheLevelOfTheStopRuleDecides) {
    const TemporaryFolder folder;
    AttemptPlan strict = plan();
    strict.stop_rule = parse_stop_rule("significant:2", 3);
    // 3.2744, 3.2754, 3.2764: t = -0.0046 / (0.001 / sqrt(3)) = -7.967 with 2 degrees, p = 0.0077: between
    // 0.01 / 2 looks and 0.01.
    const Attempt attempt = of_one_source(folder.path(), strict, 3.2744);
    const AttemptResult result = judge_attempt(attempt, read_attempt_logs(attempt, folder.path()), "");
    EXPECT_FALSE(result.below_target);
    EXPECT_NE(result.reason.find("is not below 0.005"), std::string::npos) << result.reason;
    Attempt lax = attempt;
    lax.plan.stop_rule = {};
    EXPECT_TRUE(judge_attempt(lax, read_attempt_logs(lax, folder.path()), "").below_target);
}

// A seed that changes nothing makes one sample, and its attempt would have fewer than were stated.
TEST(Attempt, RepeatsAreNotCounted) {
    const TemporaryFolder folder;
    const Attempt attempt = of_one_source(folder.path(), plan(), 3.26);
    const auto logs = [&] { return read_attempt_logs(attempt, folder.path()); };
    EXPECT_EQ(repeated_runs(logs()), "");
    write_file(folder / attempt.runs[2].log, log_text(40, 3.26, 51, "new"));
    write_file(folder / attempt.runs[1].log, log_text(40, 3.26, 52, "new"));
    EXPECT_EQ(repeated_runs(logs()),
              attempt.runs[2].log + ": the same run as " + (folder / attempt.runs[1].log).string());
    const AttemptResult result = judge_attempt(attempt, logs(), "");
    EXPECT_FALSE(result.below_target);
    EXPECT_NE(result.reason.find("refused, as runs repeat others"), std::string::npos) << result.reason;
}

TEST(Attempt, AFailedRunFailsIt) {
    const TemporaryFolder folder;
    Attempt attempt = of_one_source(folder.path(), plan(), 3.26);
    attempt.runs[1].state = AttemptRun::State::failed;
    attempt.runs[1].exit_code = 2;
    const AttemptResult result = judge_attempt(attempt, read_attempt_logs(attempt, folder.path()), "");
    EXPECT_FALSE(result.below_target);
    EXPECT_NE(result.reason.find(attempt.runs[1].log + " (exit code 2)"), std::string::npos) << result.reason;
}

}  // namespace
}  // namespace speedrun

#include "record/judge/step_rule.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "record/judge/step_report.h"
#include "support/expect_error.h"

namespace speedrun {
namespace {

// One run: its validations as step and loss.
using Losses = std::vector<std::pair<int64_t, double>>;

RunGroup group_of(const std::vector<Losses>& runs) {
    RunGroup group;
    for (const Losses& losses : runs) {
        GroupRun& run = group.runs.emplace_back();
        run.path = std::to_string(group.runs.size()) + ".txt";
        for (const auto& [step, loss] : losses) run.run.validations.push_back({step, loss});
        run.run.last_validation = run.run.validations.back();
        run.run.final_step = losses.back().first;
    }
    return group;
}

StepResult result_of(int64_t step, double mean, int64_t n) {
    StepResult result;
    result.step = step;
    result.loss.mean = mean;
    result.loss.n = n;
    return result;
}

RunGroup logs(const std::string& name) {
    CollectOptions options;
    options.counts_steps = true;
    const std::array<std::filesystem::path, 1> paths{SPEEDRUN_SOURCE_DIR "/tests/record/track_3_logs/" +
                                                     name};
    const Collection runs = collect_runs(paths, options);
    EXPECT_EQ(runs.groups.size(), 1U);
    return runs.groups.at(0);
}

// The examples of the track's own text: 3.276 for one run, 3.278 for four. Both lie on the bound.
TEST(StepRule, TheMarginIsThatOfTheTrack) {
    EXPECT_TRUE(judge_steps(group_of({{{10, 3.276}}})).valid());
    EXPECT_FALSE(judge_steps(group_of({{{10, 3.27601}}})).valid());
    const auto four = [](double loss) {
        return judge_steps(group_of({{{10, loss - 1e-3}}, {{10, loss + 1e-3}}, {{10, loss}}, {{10, loss}}}));
    };
    EXPECT_TRUE(four(3.278).valid());
    EXPECT_FALSE(four(3.27801).valid());
    EXPECT_TRUE(judge_steps(group_of({{{10, 3.3}}}), 3.304).valid()) << "another target";
    EXPECT_FALSE(judge_steps(group_of({{{10, std::nan("")}}})).valid());
    EXPECT_EQ(judge_steps(group_of({})).reason, "no run");
}

TEST(StepRule, TheEarliestCommonStepThatPasses) {
    const RunGroup group = group_of(
        {{{10, 3.28}, {12, 3.27}, {20, 3.27}, {30, 3.26}}, {{10, 3.27}, {15, 3.25}, {20, 3.28}, {30, 3.27}}});
    const StepVerdict verdict = judge_steps(group);
    ASSERT_TRUE(verdict.valid());
    EXPECT_EQ(verdict.steps.size(), 3U) << "12 and 15 are one run's";
    EXPECT_EQ(verdict.result->step, 10);
    EXPECT_NEAR(verdict.result->margin, 0.005 * std::sqrt(2), 1e-12);
    EXPECT_EQ(judge_steps(group, 3.2700).result->step, 30);
    EXPECT_EQ(judge_steps(group, 3.28, 20).result->step, 20);
    const StepVerdict missing = judge_steps(group, 3.28, 15);
    EXPECT_FALSE(missing.valid());
    EXPECT_EQ(missing.reason, "1.txt has no val_loss at step 15, and ends with step 30");
}

// Whoever stops a run by its losses takes all later steps from the others.
TEST(StepRule, ARunThatWasStoppedHoldsUpTheOthers) {
    const RunGroup group = logs("early_stop");
    EXPECT_EQ(group.runs.size(), 3U);
    const StepVerdict verdict = judge_steps(group);
    EXPECT_FALSE(verdict.valid());
    EXPECT_EQ(verdict.steps.back().step, 36);
    EXPECT_NE(verdict.reason.find("b.txt ends with step 36, and no step after it is common"),
              std::string::npos)
        << verdict.reason;
    EXPECT_FALSE(judge_steps(group, 3.28, 40).valid());
    const StepVerdict ema = judge_steps(group, 3.28, std::nullopt, Readout::ema);
    ASSERT_TRUE(ema.valid()) << ema.reason;
    EXPECT_NEAR(ema.result->loss.mean, 3.2772, 1e-9);
    EXPECT_FALSE(judge_steps(logs("complete"), 3.28, std::nullopt, Readout::ema).valid()) << "no such losses";
}

// Three runs in one file, a fourth of another source, its numbers with other times under another name, and
// what a terminal showed of two of them, with their last lines repeated.
TEST(StepRule, CopiesAndCollectionsAreNoRuns) {
    const RunGroup group = logs("complete");
    EXPECT_EQ(group.runs.size(), 4U);
    ASSERT_EQ(group.excluded.size(), 3U);
    for (const Excluded& e : group.excluded) {
        EXPECT_TRUE(e.repeat);
        EXPECT_NE(e.reason.find("the same run as"), std::string::npos) << e.reason;
    }
    const StepVerdict verdict = judge_steps(group);
    EXPECT_EQ(verdict.result->step, 38);
    EXPECT_NEAR(verdict.result->margin, 0.004, 1e-9);
    const std::string table = step_check_table({{group, verdict}}),
                      markdown = step_check_markdown({{group, verdict}});
    for (const std::string& text : {table, markdown}) {
        EXPECT_NE(text.find("2 sources"), std::string::npos) << text;
        EXPECT_NE(text.find("fails"), std::string::npos) << text;
        EXPECT_NE(text.find("renamed.txt: the same run as"), std::string::npos) << text;
        EXPECT_EQ(text.find("\n30 "), std::string::npos) << "the last tenth: " << text;
    }
    const auto json = step_check_json({{group, verdict}});
    EXPECT_EQ(json[0]["verdict"], "valid");
    EXPECT_EQ(json[0]["step"], 38);
    EXPECT_EQ(json[0]["steps"].size(), 6U);
}

// The three calculations of the track's text, and of #11 against #9, whose loss is worth more than its steps.
TEST(StepRule, PairsAreComparedAsTheTrackDoes) {
    const auto margin = [](const StepResult& a, const StepResult& b) { return compare_steps(a, b).margin; };
    const StepResult r6 = result_of(3375, 3.2788, 20), r8 = result_of(3250, 3.2778, 10),
                     r9 = result_of(3250, 3.2771, 8), r11 = result_of(3225, 3.2785, 16),
                     r12 = result_of(3325, 3.2790, 20), r13 = result_of(3210, 3.2785, 10);
    EXPECT_NEAR(margin(r11, r13), 0.00167, 1e-5);
    EXPECT_NEAR(margin(r6, r12), 0.00648, 1e-5);
    EXPECT_TRUE(compare_steps(r6, r12).better);
    EXPECT_LT(margin(r9, r11), 0);
    // The text counts 16 runs of #13 here; its logs are 10: 0.0011 / sqrt(1/10 + 1/10).
    EXPECT_NEAR(margin(r8, r13), 0.00246, 1e-5);
    EXPECT_FALSE(compare_steps(r8, r13).better);
    EXPECT_NE(step_comparison_text(compare_steps(r8, r13)).find("not shown to be better"), std::string::npos);
    EXPECT_EQ(step_comparison_json(compare_steps(r6, r12))["better"], true);
}

TEST(Track, ByNumberOrName) {
    EXPECT_EQ(track_named("2").name, "medium");
    EXPECT_EQ(track_named("optimization").number, 3);
    EXPECT_TRUE(track_named("3").counts_steps);
    expect_user_error([] { track_named("long"); }, {"\"long\"", "1 or short", "3 or optimization"});
}

}  // namespace
}  // namespace speedrun

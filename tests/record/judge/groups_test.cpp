#include "record/judge/groups.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "record/judge/check_report.h"
#include "record/log_builder.h"
#include "support/temporary_folder.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

Collection collect(const std::vector<std::filesystem::path>& paths, bool pool = false) {
    CollectOptions options;
    options.pool = pool;
    options.threads = 2;
    return collect_runs(paths, options);
}

bool has(const std::vector<std::string>& texts, const std::string& part) {
    return std::ranges::any_of(texts,
                               [&](const std::string& t) { return t.find(part) != std::string::npos; });
}

TEST(Groups, OneFolderOfComparableRuns) {
    const TemporaryFolder folder;
    for (int i = 0; i < 5; ++i)
        write_file(folder / (std::to_string(i) + ".txt"), log_text(20, 3.27 + 0.001 * i, 50 + i));
    write_file(folder / "README.md", step_lines(20, 1.0));
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 1U);
    const RunGroup& group = runs.groups[0];
    EXPECT_EQ(group.path, folder.path());
    EXPECT_EQ(group.steps, 20);
    EXPECT_EQ(group.hardware, "8 x NVIDIA H100 80GB HBM3");
    EXPECT_EQ(group.final_losses(), (std::vector{3.27, 3.271, 3.272, 3.273, 3.274}));
    EXPECT_EQ(group.final_times_ms(), (std::vector{1000.0, 1020.0, 1040.0, 1060.0, 1080.0}));
    EXPECT_TRUE(group.excluded.empty() && runs.problems.empty());
    EXPECT_EQ(runs.files, 5);
}

TEST(Groups, MixedFoldersAreSplit) {
    const TemporaryFolder folder;
    write_file(folder / "a.txt", log_text(20, 3.27));
    write_file(folder / "b.txt", log_text(20, 3.28));
    write_file(folder / "steps.txt", log_text(30, 3.27));
    write_file(folder / "source.txt", log_text(20, 3.27, 50, "other"));
    write_file(folder / "gpus.txt", log_text(20, 3.27, 50, "a", 1));
    write_file(folder / "below" / "c.log", log_text(20, 3.26));
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 5U);
    EXPECT_EQ(std::ranges::count_if(runs.groups, [](const RunGroup& g) { return g.runs.size() == 2; }), 1);
    EXPECT_EQ(std::ranges::count(runs.groups, folder / "below", &RunGroup::path), 1);
}

TEST(Groups, PoolJoinsFolders) {
    const TemporaryFolder folder;
    write_file(folder / "1" / "log.txt", log_text(20, 3.27));
    write_file(folder / "2" / "log.txt", log_text(20, 3.28));
    EXPECT_EQ(collect({folder.path()}).groups.size(), 2U);
    const Collection pooled = collect({folder / "1", folder / "2" / "log.txt", folder.path()}, true);
    ASSERT_EQ(pooled.groups.size(), 1U);
    EXPECT_EQ(pooled.groups[0].runs.size(), 2U);  // a file that was named twice counts once
}

TEST(Groups, UnfinishedRunsAndCopiesAreLeftOut) {
    const TemporaryFolder folder;
    const std::string whole = log_text(20, 3.27);
    write_file(folder / "a.txt", whole);
    write_file(folder / "b.txt", log_text(20, 3.275));
    write_file(folder / "copy.txt", whole);
    write_file(folder / "cut.txt", whole.substr(0, whole.find("step:12/20")));
    write_file(folder / "empty.txt", "");
    write_file(folder / "notes.txt", "nothing here\n");
    write_file(folder / "binary.log", std::string("\x7f"
                                                  "ELF\0\0\0",
                                                  7));
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 1U);
    EXPECT_EQ(runs.groups[0].runs.size(), 2U);
    std::vector<std::string> reasons;
    for (const Excluded& e : runs.groups[0].excluded)
        reasons.push_back(e.path.filename().string() + ": " + e.reason);
    std::ranges::sort(reasons);
    EXPECT_EQ(reasons, (std::vector<std::string>{"binary.log: a binary file",
                                                 "copy.txt: same bytes as " + (folder / "a.txt").string(),
                                                 "cut.txt: stopped after step 11 of 20",
                                                 "empty.txt: empty file", "notes.txt: no step lines"}));
}

std::vector<std::string> reasons_of(const RunGroup& group) {
    std::vector<std::string> reasons;
    for (const Excluded& e : group.excluded)
        reasons.push_back(e.path.filename().string() + " " + std::to_string(e.index) + ": " + e.reason);
    std::ranges::sort(reasons);
    return reasons;
}

// A log of this program, whose header says the seed.
std::string seeded_log(uint64_t seed, double loss, double step_ms) {
    return "{\n \"seed\": " + std::to_string(seed) + "\n}\n" + kLogRule +
           "\ncommand: speedrun train\nseed: " + std::to_string(seed) + "\n" + kLogRule + "\n" +
           step_lines(20, loss, step_ms);
}

// The program is deterministic: what is repeated is no chance.
TEST(Groups, ASeedIsOneSampleHoweverOftenItIsRun) {
    const TemporaryFolder folder;
    write_file(folder / "a.txt", seeded_log(7, 3.27, 50));
    write_file(folder / "b.txt", seeded_log(7, 3.27, 51));
    write_file(folder / "c.txt", seeded_log(8, 3.271, 50));
    write_file(folder / "d.txt", "trial:1/2 seed:1\n" + step_lines(20, 3.1, 40) + "trial:2/2 seed:1\n" +
                                     step_lines(20, 3.2, 41));
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 2U);
    EXPECT_EQ(runs.groups[0].runs.size() + runs.groups[1].runs.size(), 3U);
    std::vector<std::string> reasons = reasons_of(runs.groups[0]);
    const auto more = reasons_of(runs.groups[1]);
    reasons.insert(reasons.end(), more.begin(), more.end());
    std::ranges::sort(reasons);
    EXPECT_EQ(
        reasons,
        (std::vector<std::string>{
            "b.txt 0: seed 7 once more, as in " + (folder / "a.txt").string() + ": no sample of its own",
            "d.txt 1: seed 1 once more, as in " + (folder / "d.txt").string() + ": no sample of its own"}));
}

// Other ends of lines, a line more, both in one file: the numbers say that it is the same run.
TEST(Groups, ACopyIsTheSameRunWhateverItsBytes) {
    const TemporaryFolder folder;
    const std::string first = log_text(20, 3.27, 50), second = log_text(20, 3.271, 51);
    const auto with_returns = [](std::string text) {
        for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 2) text.insert(at, "\r");
        return text;
    };
    write_file(folder / "a.txt", first);
    write_file(folder / "b.txt", first + "\n");
    write_file(folder / "c.txt", with_returns(first));
    write_file(folder / "d.txt", "\xEF\xBB\xBF" + first);
    write_file(folder / "e.txt", second + second);
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 1U);
    EXPECT_EQ(runs.groups[0].final_losses(), (std::vector{3.27, 3.271}));
    const std::string same = "the same run as " + (folder / "a.txt").string();
    EXPECT_EQ(reasons_of(runs.groups[0]),
              (std::vector<std::string>{"b.txt 0: " + same, "c.txt 0: " + same, "d.txt 0: " + same,
                                        "e.txt 1: repeats lines of a run above it"}));
}

// What a terminal showed of a run, and its last line alone, beside the log.
TEST(Groups, ALogThatShowsLessOfARunIsTheSameRun) {
    const TemporaryFolder folder;
    const auto at = [](int64_t step, double loss, double ms) {
        return validation_line(step, 20, loss, ms) + "\n";
    };
    write_file(folder / "full.txt", step_lines(20, 3.27, 50));
    write_file(folder / "shown.txt", at(10, 4.27, 500) + at(20, 3.27, 1000));
    write_file(folder / "last.txt", at(20, 3.27, 1000));
    write_file(folder / "other.txt", at(10, 4.26, 500) + at(20, 3.27, 1000));
    write_file(folder / "one" / "a.txt", at(20, 3.27, 1000));
    write_file(folder / "one" / "b.txt",
               at(20, 3.27, 1000) + "step:20/20 train_time:1000ms step_avg:50.00ms\n" + at(20, 3.26, 1000));
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 2U);
    EXPECT_EQ(runs.groups[0].runs.size(), 2U);
    const std::string same = " 0: the same run as " + (folder / "full.txt").string();
    EXPECT_EQ(reasons_of(runs.groups[0]), (std::vector<std::string>{"last.txt" + same, "shown.txt" + same}));
    EXPECT_EQ(runs.groups[1].runs.size(), 2U) << "one equal line is no proof";
}

// The same bits computed twice take other times, and no log need say their seed.
TEST(Groups, EqualLossesAreOneRunWhateverTheTimes) {
    const TemporaryFolder folder;
    const auto run = [](double last, double step_ms) { return step_lines(40, last, step_ms); };
    write_file(folder / "a.txt", run(3.27, 50));
    write_file(folder / "again.txt", run(3.27, 51));
    write_file(folder / "other.txt", run(3.271, 52));
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 1U);
    EXPECT_EQ(runs.groups[0].runs.size(), 2U);
    EXPECT_EQ(reasons_of(runs.groups[0]),
              (std::vector<std::string>{"again.txt 0: the same run as " + (folder / "a.txt").string()}));
    EXPECT_TRUE(runs.groups[0].excluded[0].repeat);
}

TEST(Groups, OnlyUnfinishedRuns) {
    const TemporaryFolder folder;
    write_file(folder / "cut.txt", "step:1/20 train_time:5ms step_avg:5.00ms\n");
    const Collection runs = collect({folder.path()});
    ASSERT_EQ(runs.groups.size(), 1U);
    EXPECT_TRUE(runs.groups[0].runs.empty());
    EXPECT_TRUE(runs.groups[0].has_log);
    EXPECT_EQ(judge(runs.groups[0]).reason, "no complete run");
}

TEST(Groups, SayWhatCannotBeRead) {
    const TemporaryFolder folder;
    std::filesystem::create_directories(folder / "nothing");
    write_file(folder / "good" / "a.txt", log_text(20, 3.27));
    std::filesystem::create_symlink("/proc/self/mem",
                                    folder / "good" / "mem.txt");  // a file whose reading fails
    const Collection runs = collect({folder / "nothing", folder / "missing", folder / "good", "/dev/zero"});
    EXPECT_TRUE(has(runs.problems, "nothing: no logs"));
    EXPECT_TRUE(has(runs.problems, "missing: No such file"));
    EXPECT_TRUE(has(runs.problems, "mem.txt: cannot read: Input/output error"));
    EXPECT_TRUE(has(runs.problems, "/dev/zero: neither a file nor a folder"));
    ASSERT_EQ(runs.groups.size(), 1U);
    EXPECT_EQ(runs.groups[0].runs.size(), 1U);
    EXPECT_EQ(runs.groups[0].excluded.size(), 1U);
}

// What root may read is no test: a child without its rights collects.
TEST(Groups, AFolderThatCannotBeReadHidesNothingElse) {
    const TemporaryFolder folder;
    std::filesystem::permissions(folder.path(), std::filesystem::perms(0755));
    for (const std::string name : {"a", "b", "c"}) write_file(folder / name / "log.txt", log_text(20, 3.27));
    std::filesystem::permissions(folder / "b", std::filesystem::perms::none);
    const pid_t child = ::fork();
    if (child == 0) {
        if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(3);
        const Collection runs = collect({folder.path()});
        const bool told =
            has(runs.problems, (folder / "b").string() + ": cannot be listed: Permission denied");
        ::_exit(runs.groups.size() == 2 && runs.problems.size() == 1 && told ? 0 : 1);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    std::filesystem::permissions(folder / "b", std::filesystem::perms(0755));
}

TEST(Groups, ALogWithoutAFolderHasAName) {
    RunGroup group;
    group.runs.push_back({"log.txt", 0, {}});
    EXPECT_EQ(group.name(), "log.txt");
    group.runs.push_back({"other.txt", 0, {}});
    EXPECT_EQ(group.name(), ".");
    group.path = "folder";
    EXPECT_EQ(group.name(), "folder");
}

TEST(Groups, UnplacedLinesAreTold) {
    const TemporaryFolder folder;
    write_file(folder / "a.txt", log_text(20, 3.27) + "step:1/2 \x1b[31m\n");
    const Collection runs = collect({folder.path()});
    EXPECT_EQ(runs.unplaced_count, 1);
    EXPECT_TRUE(has(collection_warnings(runs), "step:1/2 ?[31m"));
}

TEST(Verdict, NeedsSignificance) {
    const auto judged = [](std::vector<double> losses, double target = kShortTarget) {
        RunGroup group;
        for (const double loss : losses) {
            group.runs.emplace_back();
            group.runs.back().run.last_validation = Validation{10, loss, 100};
        }
        return judge(group, target);
    };
    EXPECT_TRUE(judged({3.2775, 3.2781, 3.2790, 3.2768}).below_target);
    EXPECT_FALSE(judged({3.2775, 3.2781, 3.2799, 3.2768}).below_target);
    EXPECT_TRUE(judged({2.9, 2.901, 2.902}, kMediumTarget).below_target);
    EXPECT_FALSE(judged({3.2}).below_target);
    EXPECT_NE(judged({3.2}).reason.find("one run"), std::string::npos);
    for (const double loss : {3.2, 3.28}) {  // logs have four decimals: equal ones do not rule chance out
        const Verdict equal = judged({loss, loss});
        EXPECT_FALSE(equal.below_target);
        EXPECT_TRUE(std::isnan(equal.test.p));
        EXPECT_NE(equal.reason.find("no variance: all 2 losses are"), std::string::npos) << equal.reason;
    }
    for (const double loss : {std::nan(""), HUGE_VAL, -HUGE_VAL}) {
        EXPECT_FALSE(judged({3.2, loss}).below_target);
        EXPECT_NE(judged({3.2, loss}).reason.find("not a finite number"), std::string::npos);
    }
    EXPECT_NE(judged({3.3, 3.31}).reason.find("is not below 3.28"), std::string::npos);
}

RunGroup timed_group(const std::vector<double>& losses, const std::vector<double>& times_ms) {
    RunGroup group;
    group.hardware = "8 x NVIDIA H100";
    for (size_t i = 0; i < losses.size(); ++i)
        group.runs.emplace_back().run.last_validation = Validation{10, losses[i], times_ms[i]};
    return group;
}

// Rule 4. The means of the times differ by 10 ms; with deviations of 1 ms that is beyond doubt, with 10 ms
// not.
TEST(Verdict, ARecordIsFasterThanItsBaselineOnTheSameHardware) {
    const std::vector<double> low = {3.270, 3.271, 3.272};
    const RunGroup baseline = timed_group(low, {99, 100, 101}), faster = timed_group(low, {89, 90, 91});
    const auto judged = [&](const RunGroup& group) { return judge(group, kShortTarget, &baseline); };
    EXPECT_EQ(judged(faster).text(), "record");
    EXPECT_NE(judged(faster).reason.find("differs from the baseline's by -10.0 ms"), std::string::npos);
    const auto denied = [](const Verdict& verdict, const std::string& why) {
        EXPECT_EQ(verdict.text(), "below target, p < 0.01");
        EXPECT_NE(verdict.reason.find(why), std::string::npos) << verdict.reason;
    };
    denied(judge(faster), "no baseline was given");
    denied(judged(timed_group(low, {109, 110, 111})), "not shown to be faster");
    denied(judged(timed_group(low, {80, 90, 100})), "not shown to be faster");
    denied(judged(timed_group(low, {90, 90, kNotLogged})), "whose times vary are needed");
    const RunGroup fixed = timed_group(low, {100, 100, 100});
    denied(judge(timed_group(low, {90, 90, 90}), kShortTarget, &fixed), "whose times vary are needed");
    RunGroup elsewhere = faster;
    elsewhere.hardware = "8 x NVIDIA H200";
    denied(judged(elsewhere), "the baseline's hardware is 8 x NVIDIA H100, not 8 x NVIDIA H200");
    elsewhere.hardware = "";
    denied(judged(elsewhere), "not logged here");
    EXPECT_EQ(judged(timed_group({3.29, 3.30, 3.31}, {89, 90, 91})).text(), "not a record");
}

// The losses and times of four published records, with what their statistics are known to be.
TEST(Verdict, PublishedFigures) {
    std::ifstream file(SPEEDRUN_SOURCE_DIR "/tests/golden/record_figures.json");
    const auto records = nlohmann::json::parse(file);
    ASSERT_EQ(records.size(), 4U);
    for (const auto& record : records) {
        const TemporaryFolder folder;
        const auto losses = record.at("val_loss").get<std::vector<double>>();
        const auto times = record.at("train_time_ms").get<std::vector<double>>();
        const int64_t steps = record.at("steps");
        for (size_t i = 0; i < losses.size(); ++i)
            write_file(folder / (std::to_string(i) + ".txt"),
                       validation_line(0, steps, 10.83, 0) + "\n" +
                           validation_line(steps, steps, losses[i], times[i]) + "\n");
        const Collection runs = collect({folder.path()});
        ASSERT_EQ(runs.groups.size(), 1U);
        const Verdict verdict = judge(runs.groups[0]);
        EXPECT_EQ(verdict.loss.n, record.at("n"));
        EXPECT_EQ(fmt::format("{:.6f}", verdict.loss.mean), record.at("mean_loss"));
        EXPECT_EQ(fmt::format("{:.6f}", verdict.loss.std), record.at("std_loss"));
        EXPECT_EQ(fmt::format("{:.6g}", verdict.test.p), record.at("p"));
        EXPECT_EQ(fmt::format("{:.1f}", verdict.time_ms.mean), record.at("mean_time_ms"));
        EXPECT_EQ(fmt::format("{:.1f}", verdict.time_ms.std), record.at("std_time_ms"));
        EXPECT_EQ(verdict.below_target, std::stod(record.at("p").get<std::string>()) < 0.01);
    }
}

TEST(CheckReport, JsonHasTheAgreedKeys) {
    const TemporaryFolder folder;
    write_file(folder / "a.txt", log_text(20, 3.27));
    const auto json = check_json(judge_all(collect({folder.path()}), kShortTarget));
    ASSERT_EQ(json.size(), 1U);
    for (const char* key : {"path", "n", "steps", "mean_loss", "std_loss", "min_loss", "max_loss", "p_value",
                            "mean_time_ms", "std_time_ms", "target", "verdict", "excluded"})
        EXPECT_TRUE(json[0].contains(key)) << key;
    EXPECT_EQ(json[0]["verdict"], "not a record");
    EXPECT_TRUE(json[0]["p_value"].is_null());
    EXPECT_TRUE(json[0]["excluded"].is_array());
}

TEST(CheckReport, TableAndMarkdown) {
    const TemporaryFolder folder;
    for (int i = 0; i < 4; ++i)
        write_file(folder / (std::to_string(i) + ".txt"), log_text(20, 3.27 + 0.001 * i));
    write_file(folder / "cut.txt", "step:1/20 train_time:5ms step_avg:5.00ms\n");
    const auto groups = judge_all(collect({folder.path()}), kShortTarget);
    const std::string table = check_table(groups), markdown = check_markdown(groups);
    for (const auto& text : {table, markdown}) {
        EXPECT_NE(text.find("3.271500"), std::string::npos) << text;
        EXPECT_NE(text.find("cut.txt: stopped after step 1 of 20"), std::string::npos) << text;
    }
    EXPECT_NE(table.find(": below target, p < 0.01: mean loss"), std::string::npos) << table;
    EXPECT_NE(markdown.find("**below target, p < 0.01**: mean loss"), std::string::npos) << markdown;
    EXPECT_NE(markdown.find("| 3.txt | 3.2730 | 1000 |"), std::string::npos) << markdown;
}

// Tables are pasted into pull requests, and read on terminals.
TEST(CheckReport, NamesAndHeadersForgeNothing) {
    const TemporaryFolder folder;
    std::string text = log_text(20, 3.27);
    text.replace(text.find("H100 80GB HBM3"), 14, "\x1b[2J | <b> `x`");
    write_file(folder / "a | 3.0 |\n| b.txt", text);
    const auto groups = judge_all(collect({folder.path()}), kShortTarget);
    const std::string table = check_table(groups), markdown = check_markdown(groups);
    EXPECT_EQ(table.find('\x1b'), std::string::npos) << table;
    EXPECT_EQ(markdown.find('\x1b'), std::string::npos) << markdown;
    EXPECT_NE(markdown.find("| a \\| 3.0 \\| \\| b.txt | 3.2700 | 1000 |"), std::string::npos) << markdown;
    EXPECT_EQ(markdown.find("| <b>"), std::string::npos) << markdown;
}

}  // namespace
}  // namespace speedrun

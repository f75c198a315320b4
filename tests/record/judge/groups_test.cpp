#include "record/judge/groups.h"

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
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

TEST(Groups, UnplacedLinesAreTold) {
    const TemporaryFolder folder;
    write_file(folder / "a.txt", log_text(20, 3.27) + "step:1/2 \x1b[31m\n");
    const Collection runs = collect({folder.path()});
    EXPECT_EQ(runs.unplaced_count, 1);
    EXPECT_TRUE(has(collection_warnings(runs), "step:1/2 \xEF\xBF\xBD[31m"));
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
    EXPECT_TRUE(judged({3.2775, 3.2781, 3.2790, 3.2768}).record);
    EXPECT_FALSE(judged({3.2775, 3.2781, 3.2799, 3.2768}).record);
    EXPECT_TRUE(judged({2.9, 2.901, 2.902}, kMediumTarget).record);
    EXPECT_FALSE(judged({3.2}).record);
    EXPECT_NE(judged({3.2}).reason.find("one run"), std::string::npos);
    EXPECT_TRUE(judged({3.2, 3.2}).record);  // p = 0
    EXPECT_FALSE(judged({3.28, 3.28}).record);
    EXPECT_NE(judged({3.28, 3.28}).reason.find("no variance"), std::string::npos);
    EXPECT_FALSE(judged({3.2, std::nan("")}).record);
    EXPECT_NE(judged({3.2, std::nan("")}).reason.find("not a number"), std::string::npos);
    EXPECT_NE(judged({3.3, 3.31}).reason.find("is not below 3.28"), std::string::npos);
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
        EXPECT_EQ(verdict.record, std::stod(record.at("p").get<std::string>()) < 0.01);
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
    EXPECT_NE(table.find(": record: mean loss"), std::string::npos) << table;
    EXPECT_NE(markdown.find("| 3.txt | 3.2730 | 1000 |"), std::string::npos) << markdown;
}

}  // namespace
}  // namespace speedrun

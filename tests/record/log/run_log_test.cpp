#include "record/log/run_log.h"

#include <gtest/gtest.h>

#include <cmath>

#include "record/log/hardware.h"
#include "record/log/parse_report.h"
#include "record/log/run_log_parser.h"
#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

RunLog parse(std::string_view text, const ParseOptions& options = {}) {
    RunLogParser parser(options);
    parser.feed(text);
    return parser.finish();
}

Run only_run(std::string_view text) {
    const RunLog log = parse(text);
    EXPECT_EQ(log.runs.size(), 1U);
    EXPECT_EQ(log.unplaced_count, 0);
    return log.runs.empty() ? Run() : log.runs.front();
}

TEST(RunLog, AWholeLog) {
    const auto run = only_run(log_text(20, 3.2784));
    EXPECT_TRUE(run.complete()) << run.incomplete_reason();
    EXPECT_EQ(run.scheduled_steps, 20);
    EXPECT_EQ(run.final_step, 20);
    EXPECT_EQ(run.last_validation->loss, 3.2784);
    EXPECT_EQ(run.train_time_ms, 1000);
    EXPECT_EQ(run.step_avg_ms, 50);
    EXPECT_EQ(run.peak_memory_mib, 30220);
    ASSERT_EQ(run.validations.size(), 3U);
    EXPECT_EQ(run.validations[1].step, 10);
    EXPECT_EQ(run.validations[1].loss, 4.2784);
    EXPECT_EQ(run.clock.size(), 23U);
    EXPECT_EQ(run.header.hardware.text(), "8 x NVIDIA H100 80GB HBM3");
    EXPECT_EQ(run.header.hardware.driver, "580.159.04");
    EXPECT_EQ(run.header.hardware.cuda, "13.0");
    EXPECT_EQ(run.header.versions.at(1), std::pair(std::string("PyTorch"), std::string("2.10.0+cu128")));
    EXPECT_EQ(run.header.started, 1784294932);  // 2026-07-17 13:28:52 UTC
    EXPECT_EQ(run.header.source_hash.size(), 16U);
}

TEST(RunLog, SourceHashIsThatOfTheSource) {
    const auto hash = [](const std::string& text) { return only_run(text).header.source_hash; };
    const std::string a = hash(log_text(20, 3.2));
    EXPECT_EQ(hash(log_text(10, 3.3, 40)), a);
    EXPECT_NE(hash(log_text(20, 3.2, 50, "b")), a);
    // The oldest logs begin with a rule; the newest have more text between header and steps.
    EXPECT_EQ(hash(kLogRule + "\n" + log_text(20, 3.2)), a);
    const std::string steps = step_lines(5, 3.2);
    EXPECT_EQ(hash(source_text() + kLogRule + "\n" + header_text() + kLogRule + "\nwarming up\n" + kLogRule +
                   "\n" + steps),
              a);
    EXPECT_EQ(hash(steps), "");
}

TEST(RunLog, SeveralRunsInAFile) {
    const RunLog log = parse("trial:1/2 seed:7\n" + step_lines(4, 3.1) + "trial:2/2 seed:8\n" +
                             step_lines(4, 3.2) + step_lines(4, 3.3) + step_lines(6, 3.4));
    ASSERT_EQ(log.runs.size(), 4U);
    EXPECT_EQ(log.runs[0].seed, 7U);
    EXPECT_EQ(log.runs[1].seed, 8U);
    EXPECT_EQ(log.runs[2].last_validation->loss, 3.3);
    EXPECT_EQ(log.runs[3].scheduled_steps, 6);
    for (const auto& run : log.runs) EXPECT_TRUE(run.complete());
    EXPECT_EQ(log.unplaced_count, 0);
}

// A job shows the last lines of its log once more below its run.
TEST(RunLog, ValidationsThatStandFurtherUpAreNoRun) {
    const auto at = [](int64_t step, double loss) {
        return validation_line(step, 60, loss, 100.0 * static_cast<double>(step)) + "\n";
    };
    const std::string run = at(10, 3.7) + at(30, 3.5) + at(60, 3.27);
    const RunLog log =
        parse(run + "job ends\n" + at(30, 3.5) + at(60, 3.27) + "next\n" + at(30, 3.6) + at(60, 3.28));
    ASSERT_EQ(log.runs.size(), 2U);
    EXPECT_EQ(log.repeated_validations, 2);
    EXPECT_EQ(log.runs[0].validations.size(), 3U);
    EXPECT_EQ(log.runs[1].last_validation->loss, 3.28);
    for (const auto& each : log.runs) EXPECT_TRUE(each.complete());
    // With their steps they look like a run, and say what they are.
    const RunLog twice = parse(step_lines(20, 3.27) + step_lines(20, 3.27));
    ASSERT_EQ(twice.runs.size(), 2U);
    EXPECT_TRUE(twice.runs[0].complete());
    EXPECT_EQ(twice.runs[1].incomplete_reason(), "repeats lines of a run above it");
    // Without a clock, equal losses are no proof.
    EXPECT_EQ(parse("s:0 tel:9.5\ns:8 tel:3.2\ns:0 tel:9.4\ns:8 tel:3.2\n").runs.size(), 2U);
}

TEST(RunLog, WhatEndsALineIsNoPartOfARun) {
    const std::string text = log_text(20, 3.27);
    std::string returns;
    for (const char c : text) returns += c == '\n' ? std::string("\r\n") : std::string(1, c);
    const auto plain = only_run(text), other = only_run(returns), marked = only_run("\xEF\xBB\xBF" + text);
    EXPECT_EQ(plain.header.source_hash, other.header.source_hash);
    EXPECT_EQ(plain.header.source_hash, marked.header.source_hash);
    EXPECT_EQ(plain.fingerprint, other.fingerprint);
    EXPECT_NE(plain.fingerprint, only_run(log_text(20, 3.27, 51)).fingerprint);
    EXPECT_NE(plain.fingerprint, only_run(log_text(20, 3.28)).fingerprint);
}

TEST(RunLog, WholeLogsOneBehindTheOther) {
    const RunLog log = parse(log_text(4, 3.1, 50, "a", 8) + log_text(4, 3.2, 50, "b", 1) + kLogRule + "\n" +
                             log_text(4, 3.3, 50, "a", 2));
    ASSERT_EQ(log.runs.size(), 3U);
    EXPECT_EQ(log.runs[1].header.hardware.text(), "1 x NVIDIA H100 80GB HBM3");
    EXPECT_NE(log.runs[0].header.source_hash, log.runs[1].header.source_hash);
    EXPECT_EQ(log.runs[0].header.source_hash, log.runs[2].header.source_hash);
}

TEST(RunLog, TheShortForms) {
    const auto run = only_run("s:0 tel:10.97\ns:0 trl:10.96\ns:1 trl:10.8\ns:2 tel:9.5\n");
    EXPECT_FALSE(run.scheduled_steps);
    EXPECT_TRUE(run.complete());
    EXPECT_EQ(run.final_step, 2);
    EXPECT_EQ(run.last_validation->loss, 9.5);
    EXPECT_TRUE(std::isnan(run.train_time_ms));
    EXPECT_EQ(only_run("s:0 tel:10.97\ns:0 trl:10.96\n").incomplete_reason(),
              "ends without a validation after step 0");
    EXPECT_FALSE(only_run("s:0 tel:10.97\n").complete());
}

TEST(RunLog, RunsThatDidNotEnd) {
    const std::string whole = step_lines(20, 3.2784);
    const auto reason_after = [&](std::string_view last_line) {
        return only_run(whole.substr(0, whole.find('\n', whole.find(last_line)) + 1)).incomplete_reason();
    };
    EXPECT_EQ(reason_after("step:13/20"), "stopped after step 13 of 20");
    EXPECT_EQ(reason_after("step:20/20 train"), "ends without a validation after step 20 of 20");
    EXPECT_EQ(reason_after("step:0/20"), "stopped after step 0 of 20");
    EXPECT_EQ(only_run("step:1/2 train_time:1ms step_avg:1ms\nstep:2/2 train_time:1ms step_avg:1ms\n")
                  .incomplete_reason(),
              "has no validation");
}

// Cut after any byte: never a loss that the whole log does not have, never complete but at its end.
TEST(RunLog, CutAnywhere) {
    const std::string whole = step_lines(12, 3.2784);
    for (size_t cut = 0; cut + 1 < whole.size(); ++cut) {
        const RunLog log = parse(whole.substr(0, cut));
        EXPECT_EQ(log.unplaced_count, 0) << cut;
        for (const auto& run : log.runs) {
            EXPECT_FALSE(run.complete()) << cut;
            for (const Validation& v : run.validations)
                EXPECT_TRUE(v.loss == 10.8258 || v.loss == 4.2784) << cut << ": " << v.loss;
        }
    }
    EXPECT_TRUE(only_run(whole.substr(0, whole.size() - 1)).complete());
}

TEST(RunLog, TellsThatTheLastLineIsUnfinished) {
    const RunLog log = parse("step:1/2 train_time:10ms step_avg:10.00ms\nstep:2/2 val_loss:3.2 train_ti");
    EXPECT_TRUE(log.unfinished_line);
    EXPECT_FALSE(log.ends_with_newline);
    EXPECT_EQ(log_remarks(log).size(), 1U);
    EXPECT_FALSE(parse("step:1/2 train_time:10ms step_avg:10.00ms").unfinished_line);
}

TEST(RunLog, UnplacedLinesAreCountedAndShown) {
    const RunLog log =
        parse(step_lines(4, 3.1) + "step:5/x train_time:1ms\n[rank0] step:5/9 train_time:4ms\nnothing\n");
    EXPECT_EQ(log.unplaced_count, 2);
    ASSERT_EQ(log.unplaced.size(), 2U);
    EXPECT_EQ(log.unplaced[0].number, 7);
    EXPECT_EQ(log.unplaced[0].text, "step:5/x train_time:1ms");
    EXPECT_EQ(log_remarks(log).size(), 3U);
}

TEST(RunLog, StepsQuotedInTheSourceAreOfNoRun) {
    const RunLog log = parse(
        "\"\"\"An example:\nstep:9/9 val_loss:1.0 train_time:5ms step_avg:1ms\n\"\"\"\n" + log_text(4, 3.1));
    ASSERT_EQ(log.runs.size(), 1U);
    EXPECT_EQ(log.runs[0].last_validation->loss, 3.1);
    EXPECT_EQ(log.lines_in_source, 1);
    EXPECT_EQ(log_remarks(log).size(), 1U);
}

TEST(RunLog, LineEndsAndMarks) {
    std::string windows;
    for (const char c : log_text(4, 3.1)) windows += c == '\n' ? std::string("\r\n") : std::string(1, c);
    EXPECT_TRUE(only_run(windows).complete());
    EXPECT_EQ(only_run(windows).header.hardware.gpus, 8);
    const auto marked = only_run("\xEF\xBB\xBFstep:1/1 val_loss:3.1 train_time:9ms step_avg:9ms\n");
    EXPECT_TRUE(marked.complete());
}

TEST(RunLog, Binaries) {
    const std::string nul(3, '\0');
    const RunLog binary = parse("step:1/1 val_loss:3.1 train_time:9ms step_avg:9ms\n" + nul);
    EXPECT_TRUE(binary.binary);
    EXPECT_TRUE(binary.runs.empty());
    EXPECT_EQ(no_log_reason(binary), "a binary file");
    // A hole that a crash left further down does not hide the steps.
    EXPECT_TRUE(only_run(step_lines(40, 3.1) + nul + "\n").complete());
    EXPECT_EQ(no_log_reason(parse("")), "empty file");
    EXPECT_EQ(no_log_reason(parse("hello\n")), "no step lines");
}

TEST(RunLog, DoesNotDependOnTheCuts) {
    const std::string text = log_text(12, 3.2784) + "step:1/x\n" +
                             std::string(RunLogParser::kMaxLineBytes + 9, 's') + "\n" + "step:9/9 junk" +
                             std::string(RunLogParser::kMaxLineBytes, 'x') + "\n" + log_text(5, 3.3, 50, "b");
    const RunLog whole = parse(text);
    ASSERT_EQ(whole.runs.size(), 2U);
    EXPECT_EQ(whole.unplaced_count, 2);
    for (const size_t piece : {1U, 7U, 100U, 4096U, 16385U}) {
        RunLogParser parser;
        for (size_t at = 0; at < text.size(); at += piece)
            parser.feed(std::string_view(text).substr(at, piece));
        const RunLog log = parser.finish();
        ASSERT_EQ(log.runs.size(), 2U) << piece;
        EXPECT_EQ(log.lines, whole.lines) << piece;
        EXPECT_EQ(log.unplaced_count, whole.unplaced_count) << piece;
        EXPECT_EQ(log.unplaced[0].number, whole.unplaced[0].number) << piece;
        EXPECT_EQ(log.content_hash, whole.content_hash) << piece;
        for (size_t i = 0; i < 2; ++i) EXPECT_EQ(log.runs[i].header, whole.runs[i].header) << piece;
    }
}

TEST(RunLog, CanBeFollowedWhileItIsWritten) {
    RunLogParser parser;
    parser.feed("step:1/3 train_time:10ms step_avg:10.00ms\nstep:2/3 tra");
    EXPECT_EQ(parser.so_far().runs.at(0).final_step, 1);
    parser.feed("in_time:20ms step_avg:10.00ms\n");
    EXPECT_EQ(parser.so_far().runs.at(0).final_step, 2);
}

// 320 MB in one line, then steps.
TEST(RunLog, AnEndlessLineTakesNoMemory) {
    RunLogParser parser;
    const std::string piece(1 << 20, 'x');
    parser.feed(step_lines(4, 3.1));
    const int64_t before = peak_resident_bytes();
    for (int i = 0; i < 320; ++i) parser.feed(piece);
    parser.feed("\n" + step_lines(4, 3.2));
    EXPECT_LT(peak_resident_bytes() - before, 4 << 20);
    const RunLog log = parser.finish();
    ASSERT_EQ(log.runs.size(), 2U);
    EXPECT_TRUE(log.runs[1].complete());
}

// Logs whose first step is their last, one behind the other.
TEST(RunLog, ARunBeginsWhereTheValidatedStepDoesNotGrow) {
    const RunLog log = parse(
        "step:8/8 val_loss:3.27 val_ema_loss:3.26 train_time:9ms step_avg:9ms\n"
        "step:8/8 val_loss:3.28 train_time:9ms step_avg:9ms\n");
    ASSERT_EQ(log.runs.size(), 2U);
    EXPECT_EQ(log.runs[0].validations.at(0).ema_loss, 3.26);
    EXPECT_TRUE(std::isnan(log.runs[1].validations.at(0).ema_loss));
}

TEST(RunLog, TooManyRunsAreShownAsUnplaced) {
    std::string text;
    for (size_t i = 0; i < RunLogParser::kMaxRuns + 5; ++i) text += "trial:1/1 seed:1\ns:1 tel:3.0\n";
    const RunLog log = parse(text);
    EXPECT_EQ(log.runs.size(), RunLogParser::kMaxRuns);
    EXPECT_EQ(log.unplaced_count, 5);
}

TEST(RunLog, ParseOptionsKeepWhatTheySay) {
    const std::string text = "step:1/1 train_loss:4.5 train_time:9ms step_avg:9ms\n" + step_lines(4, 3.1);
    const RunLog bare = parse(text, {.keep_clock = false, .keep_train_losses = true});
    EXPECT_TRUE(bare.runs[1].clock.empty());
    EXPECT_EQ(bare.runs[0].train_losses.at(0).loss, 4.5);
    EXPECT_TRUE(bare.runs[1].complete());
}

// Runs of one attempt differ in their seed only.
TEST(RunLog, OwnLogs) {
    const TemporaryFolder folder;
    const auto write = [&](const std::string& name, uint64_t seed, const std::string& commit) {
        TrackLog log(folder / name);
        RunDescription run;
        run.command_line = "speedrun train";
        run.config_json = "{\n  \"runtime\": {\"threads\": 0, \"seed\": " + std::to_string(seed) + "}\n}";
        run.commit = commit;
        run.libraries = {{"torch", "2.11.0"}};
        run.hardware = "processor: AMD EPYC\ncores this process may use: 2";
        run.seed = seed;
        log.header(run);
        log.validation(0, 1, 10.8, 0);
        log.step(1, 1, 500);
        log.validation(1, 1, 4.5, 500);
        return read_run_log(folder / name).runs.at(0);
    };
    const auto a = write("a", 7, "c0ffee"), b = write("b", 123456, "c0ffee"), c = write("c", 7, "decade");
    EXPECT_TRUE(a.complete());
    EXPECT_EQ(a.seed, 7U);
    EXPECT_EQ(a.header.hardware.text(), "AMD EPYC, 2 cores");
    EXPECT_EQ(a.header.versions.at(0), std::pair(std::string("torch"), std::string("2.11.0")));
    EXPECT_EQ(a.header.field("commit"), "c0ffee");
    EXPECT_EQ(a.header.source_hash, b.header.source_hash);
    EXPECT_NE(a.header.source_hash, c.header.source_hash);
}

TEST(RunLog, FilesThatCannotBeRead) {
    const TemporaryFolder folder;
    expect_user_error([&] { read_run_log(folder / "none"); }, {"none", "cannot read", "No such file"});
    expect_user_error([&] { read_run_log(folder.path()); },
                      {folder.path().string(), "cannot read", "directory"});
}

}  // namespace
}  // namespace speedrun

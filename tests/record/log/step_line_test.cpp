#include "record/log/step_line.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace speedrun {
namespace {

StepLine parsed(std::string_view line) {
    const auto result = parse_step_line(line);
    EXPECT_TRUE(result) << line;
    return result.value_or(StepLine());
}

TEST(StepLine, TrainingStep) {
    const StepLine line = parsed("step:12/1390 train_time:422ms step_avg:35.17ms");
    EXPECT_EQ(line.step, 12);
    EXPECT_EQ(line.scheduled_steps, 1390);
    EXPECT_EQ(line.train_time_ms, 422);
    EXPECT_EQ(line.step_avg_ms, 35.17);
    EXPECT_FALSE(line.val_loss || line.train_loss);
}

TEST(StepLine, Validation) {
    const StepLine line = parsed("step:1390/1390 val_loss:3.2775 train_time:79532ms step_avg:57.22ms");
    EXPECT_EQ(line.val_loss, 3.2775);
    EXPECT_EQ(line.train_time_ms, 79532);
}

TEST(StepLine, TrainLossAndAverageThatIsNotANumber) {
    const StepLine line = parsed("step:7/5100 train_loss:9.5012 train_time:1200ms step_avg:nanms");
    EXPECT_EQ(line.train_loss, 9.5012);
    EXPECT_TRUE(std::isnan(line.step_avg_ms.value()));
}

TEST(StepLine, SecondsAndLaterFields) {
    const StepLine line = parsed(
        "step:125/2900 val_loss:4.25 val_avg_loss:4.30 val_ema_loss:4.35 train_time:96.315s "
        "step_avg:770.52ms "
        "ema_beta:0 extrap_rel:1.000e-03 handoff:none ref_gamma:-0.075");
    EXPECT_EQ(line.val_loss, 4.25);
    EXPECT_EQ(line.val_ema_loss, 4.35);
    EXPECT_EQ(line.train_time_ms, 96315);
    EXPECT_EQ(line.step_avg_ms, 770.52);
}

TEST(StepLine, TheShortForms) {
    const StepLine validation = parsed("s:512 tel:4.4310");
    EXPECT_EQ(validation.step, 512);
    EXPECT_EQ(validation.val_loss, 4.431);
    EXPECT_FALSE(validation.scheduled_steps);
    const StepLine step = parsed("s:3 trl:10.8 lr:0.000003 norm:14.84");
    EXPECT_EQ(step.train_loss, 10.8);
    EXPECT_FALSE(step.val_loss);
}

TEST(StepLine, LossesThatAreNotFinite) {
    EXPECT_TRUE(std::isnan(parsed("step:5/9 val_loss:nan train_time:1ms step_avg:1ms").val_loss.value()));
    EXPECT_TRUE(std::isinf(parsed("step:5/9 val_loss:inf train_time:1ms step_avg:1ms").val_loss.value()));
}

// Every number must be the double nearest to its decimals, whichever way it was read.
TEST(StepLine, NumbersAreTheNearestDoubles) {
    for (const char* number :
         {"3.2784", "0.1", "10.825840", "123456789012345", "12345678901234567890", "3.27840000000000001",
          "1.5e-3", "99999.99999999999", "0.000000000000001", "3", "3."}) {
        const auto line = parsed("s:1 tel:" + std::string(number));
        EXPECT_EQ(line.val_loss.value(), std::stod(number)) << number;
    }
}

TEST(StepLine, NumbersOfEveryLength) {
    std::string digits;
    for (int length = 1; length <= 25; ++length) {
        digits += static_cast<char>('0' + (7 * length) % 10);
        for (size_t point = 0; point <= digits.size(); ++point) {
            std::string number = digits;
            if (point > 0) number.insert(point, ".");
            for (const char* rest : {"", " lr:0.1", " lr:0.00000000001"})
                EXPECT_EQ(parsed("s:1 tel:" + number + rest).val_loss.value(), std::stod(number))
                    << number << rest;
        }
        if (length <= 18) {
            EXPECT_EQ(parsed("s:" + digits + " tel:3.25").step, std::stoll(digits));
            EXPECT_EQ(parsed("step:1/" + digits + " val_loss:3").scheduled_steps, std::stoll(digits));
        }
    }
}

TEST(StepLine, WhatIsNone) {
    for (const char* line : {"",
                             "s",
                             "s:",
                             "step:",
                             "step:1",
                             "step:1/",
                             "step:1/2",
                             "step:x/2 train_time:1ms",
                             "step:1/2 ",
                             "step:1/2 train_time:1",
                             "step:1/2 train_time:ms",
                             "step:1/2 train_time:-1ms step_avg:1ms",
                             "step:1/2 train_time:nanms step_avg:1ms",
                             "step:1/2 train_time:infms",
                             "step:1/2 val_loss: train_time:1ms",
                             "step:1/2 val_loss:3.2x train_time:1ms",
                             "step:1/2 train_time:1ms step_avg:1",
                             "step:-1/2 train_time:1ms",
                             "step:1/2 train_time:1e999ms",
                             "step:99999999999999999999/2 train_time:1ms",
                             "step:1/2,train_time:1ms",
                             "step:1/2 train_time:1ms and more",
                             "s:1",
                             "s:1 lr:0.1",
                             "Step:1/2 train_time:1ms",
                             " step:1/2 train_time:1ms step_avg:1ms"})
        EXPECT_FALSE(parse_step_line(line)) << line;
}

TEST(StepLine, WhatLooksLikeOne) {
    EXPECT_TRUE(begins_like_step_line("step:1/2 garbage"));
    EXPECT_TRUE(begins_like_step_line("s:1"));
    EXPECT_FALSE(begins_like_step_line("step: int = 0"));
    EXPECT_FALSE(begins_like_step_line("s: str"));
    EXPECT_TRUE(mentions_step("[rank0] step:1/2 train_time:3ms"));
    EXPECT_TRUE(mentions_step("tail step:12 val_loss:3.2"));
    EXPECT_FALSE(mentions_step("checkpoint at step:2000"));
    EXPECT_FALSE(mentions_step("print(f\"step:{step}/{steps} val_loss:{loss}\")"));
}

TEST(TrialLine, CountsAndSeed) {
    EXPECT_EQ(parse_trial_line("trial:3/25 seed:2").value().seed, 2U);
    EXPECT_TRUE(parse_trial_line("trial:3/25"));
    EXPECT_FALSE(parse_trial_line("trial:"));
    EXPECT_FALSE(parse_trial_line("triangle"));
}

}  // namespace
}  // namespace speedrun

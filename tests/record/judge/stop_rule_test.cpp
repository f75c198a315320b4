#include "record/judge/stop_rule.h"

#include <cmath>
#include <vector>

#include "support/expect_error.h"

namespace speedrun {
namespace {

std::string reason(const std::string& rule, std::vector<double> losses, int64_t runs = 8) {
    return reason_to_stop(parse_stop_rule(rule, runs), losses, 3.28, runs).value_or("goes on");
}

TEST(StopRule, IsReadAsItIsWritten) {
    for (const std::string text : {"none", "futility:3", "significant:4", "futility:2,significant:8"})
        EXPECT_EQ(stop_rule_text(parse_stop_rule(text, 8)), text);
    for (const std::string text : {"", "futility", "futility:", "futility:1", "significant:9", "futility:3,",
                                   "futility:3,futility:3", "futility:3x", "other:3", "none,futility:3"})
        expect_user_error([&] { parse_stop_rule(text, 8); }, {"futility:K", "8 runs"});
}

TEST(StopRule, NoneMakesAllRuns) {
    EXPECT_EQ(reason("none", {9, 9, 9}), "goes on");
    EXPECT_EQ(reason("none", {1, 1.1, 1}), "goes on");
}

TEST(StopRule, FutilityGivesUpFromItsRunOn) {
    EXPECT_EQ(reason("futility:3", {3.5, 3.5}), "goes on");
    EXPECT_EQ(reason("futility:3", {3.2, 3.2, 3.5}),
              "futility: after 3 runs the mean loss 3.300000 is not below 3.28");
    EXPECT_EQ(reason("futility:3", {3.2, 3.2, 3.3}), "goes on");
}

// Seven runs of 8 are looked at from 4 on: 5 looks, each at 0.01 / 5. For losses 3.27, 3.28 in turns around
// a mean of 3.275 (n = 6): t = -0.005 / (0.0054772 / sqrt(6)) = -2.236, p = 0.0378; for a tenth of that
// spread t = -22.4 and p = 1.7e-6.
TEST(StopRule, SignificanceIsSharedAmongItsLooks) {
    EXPECT_DOUBLE_EQ(significance_level(parse_stop_rule("significant:4", 8), 8), 0.002);
    EXPECT_DOUBLE_EQ(significance_level(parse_stop_rule("futility:4", 8), 8), 0.01);
    EXPECT_EQ(reason("significant:4", {3.27, 3.28, 3.27, 3.28, 3.27, 3.28}), "goes on");
    EXPECT_NE(reason("significant:4", {3.2745, 3.2755, 3.2745, 3.2755, 3.2745, 3.2755}), "goes on");
    EXPECT_EQ(reason("significant:4", {3.2, 3.2, 3.2, 3.2}), "goes on") << "equal losses are no test";
    EXPECT_EQ(reason("significant:7", {3.2745, 3.2755, 3.2745, 3.2755, 3.2745, 3.2755}), "goes on");
}

TEST(StopRule, ALossThatIsNoNumberEndsIt) {
    EXPECT_EQ(reason("none", {3.2, std::nan("")}), "a final loss is not a number");
}

}  // namespace
}  // namespace speedrun

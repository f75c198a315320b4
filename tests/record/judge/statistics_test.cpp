#include "record/judge/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace speedrun {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// The comments give what scipy 1.17.1 and numpy 2 answered. Both sides do the same few sums in doubles and
// end in an incomplete beta function good to some ulps, so that ten digits must agree.
constexpr double kRelative = 1e-10;

void expect_near(double found, double expected) {
    EXPECT_NEAR(found, expected, kRelative * std::abs(expected));
}

TEST(Summary, OfASample) {
    const Summary s = summarize(std::vector{2.0, 4.0, 4.0, 6.0});
    EXPECT_EQ(s.n, 4);
    EXPECT_EQ(s.mean, 4);
    expect_near(s.std, std::sqrt(8.0 / 3));
    EXPECT_EQ(s.min, 2);
    EXPECT_EQ(s.max, 6);
}

TEST(Summary, OfTooSmallOrDamagedSamples) {
    EXPECT_TRUE(std::isnan(summarize({}).mean));
    const Summary one = summarize(std::vector{3.28});
    EXPECT_EQ(one.mean, 3.28);
    EXPECT_TRUE(std::isnan(one.std));
    const Summary damaged = summarize(std::vector{3.27, kNan, 3.28});
    EXPECT_EQ(damaged.n, 3);
    EXPECT_TRUE(std::isnan(damaged.mean) && std::isnan(damaged.std) && std::isnan(damaged.min));
    EXPECT_EQ(summarize(std::vector{kInfinity, 3.0}).mean, kInfinity);
}

TEST(Summary, EqualValuesHaveNoVariance) {
    // 3.2791 is no binary fraction: a plain sum of seven, divided by seven, misses it.
    for (size_t n = 2; n < 40; ++n) {
        const Summary s = summarize(std::vector<double>(n, 3.2791));
        EXPECT_EQ(s.mean, 3.2791);
        EXPECT_EQ(s.std, 0);
    }
}

// scipy.stats.ttest_1samp(sample, target, alternative="less")
TEST(TTest, AnswersAsScipyDoes) {
    const TTest test = t_test_less(std::vector{3.2775, 3.2781, 3.2790, 3.2768}, 3.28);
    expect_near(test.t, -4.610083899802716);
    expect_near(test.p, 0.009599293916468417);
    EXPECT_EQ(test.degrees, 3);
    expect_near(t_test_less(std::vector{1.0, 2.0, 3.0, 4.0}, 0).p, 0.9847668541689145);
    expect_near(t_test_less(std::vector{2.91, 2.93, 2.90}, 2.92).p, 0.26429773960449343);
}

TEST(TTest, DegenerateSamples) {
    EXPECT_TRUE(std::isnan(t_test_less({}, 3.28).p));                              // nan
    EXPECT_TRUE(std::isnan(t_test_less(std::vector{3.27}, 3.28).p));               // nan
    EXPECT_TRUE(std::isnan(t_test_less(std::vector{3.279, kNan, 3.27}, 3.28).p));  // nan
    EXPECT_TRUE(std::isnan(t_test_less(std::vector{3.1, kInfinity}, 3.28).p));     // nan
    EXPECT_TRUE(std::isnan(t_test_less(std::vector<double>(5, 3.28), 3.28).p));    // nan
    const TTest below = t_test_less(std::vector<double>(5, 3.279), 3.28);          // (-inf, 0.0)
    EXPECT_EQ(below.t, -kInfinity);
    EXPECT_EQ(below.p, 0);
    const TTest above = t_test_less(std::vector<double>(5, 3.281), 3.28);  // (inf, 1.0)
    EXPECT_EQ(above.t, kInfinity);
    EXPECT_EQ(above.p, 1);
}

// scipy.stats.ttest_ind(changed, baseline, equal_var=False).confidence_interval(...)
TEST(Welch, AnswersAsScipyDoes) {
    const std::vector<double> baseline{84600, 84700, 84650, 84550, 84800}, changed{83900, 83850, 83800};
    const Interval at95 = welch_interval(baseline, changed);
    expect_near(at95.value, -810);
    expect_near(at95.degrees, 5.986028520293287);
    expect_near(at95.low, -936.823985623608);
    expect_near(at95.high, -683.176014376392);
    const Interval at99 = welch_interval(baseline, changed, 0.99);
    expect_near(at99.low, -1002.2323231746893);
    expect_near(at99.high, -617.7676768253107);
}

TEST(Welch, DegenerateSamples) {
    const Interval one = welch_interval(std::vector{5.0}, std::vector{3.0, 4.0});
    EXPECT_EQ(one.value, -1.5);
    EXPECT_TRUE(std::isnan(one.low) && std::isnan(one.high));
    const Interval flat = welch_interval(std::vector{5.0, 5.0}, std::vector{3.0, 3.0});
    EXPECT_EQ(flat.value, -2);
    EXPECT_EQ(flat.low, -2);
    EXPECT_EQ(flat.high, -2);
}

// scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.95)
TEST(MeanInterval, AnswersAsScipyDoes) {
    const Interval interval = mean_interval(std::vector{3.2775, 3.2781, 3.2790, 3.2768});
    expect_near(interval.low, 3.276365805849726);
    expect_near(interval.high, 3.279334194150274);
}

TEST(StudentT, Quantiles) {
    expect_near(student_t_quantile(0.975, 7.3), 2.345066736547703);
    expect_near(student_t_quantile(0.005, 3), -5.840909309733357);
}

}  // namespace
}  // namespace speedrun

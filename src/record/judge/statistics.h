#pragma once
#include <cstdint>
#include <span>

namespace speedrun {

// Of a sample; NaN where the sample is too small for it. A NaN in the sample makes all four NaN.
struct Summary {
    int64_t n = 0;
    double mean = 0, std = 0;  // std with n - 1 in the denominator
    double min = 0, max = 0;
};
Summary summarize(std::span<const double> sample);

// One-sided one-sample t-test of H0: mean >= target against H1: mean < target.
struct TTest {
    double t = 0, degrees = 0;
    double p = 0;  // P(T <= t) for Student's t with `degrees`
};

// As scipy.stats.ttest_1samp(sample, target, alternative="less") answers, degenerate samples included: NaN
// for fewer than two values or a NaN among them; without variance t = -inf and p = 0 below the target, t =
// +inf and p = 1 above it, NaN on it.
TTest t_test_less(std::span<const double> sample, double target);

// A value with its confidence interval; the bounds are NaN where the samples are too small (n < 2).
struct Interval {
    double value = 0, low = 0, high = 0;
    double confidence = 0.95;
    double degrees = 0;
};

// The mean, by Student's t.
Interval mean_interval(std::span<const double> sample, double confidence = 0.95);

// mean(changed) - mean(baseline), variances not assumed equal (Welch; Satterthwaite's degrees of freedom).
Interval welch_interval(std::span<const double> baseline, std::span<const double> changed,
                        double confidence = 0.95);

// The p-quantile of Student's t, 0 < p < 1, degrees > 0.
double student_t_quantile(double p, double degrees);

}  // namespace speedrun

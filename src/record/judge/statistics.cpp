#include "record/judge/statistics.h"

#include <algorithm>
#include <boost/math/distributions/students_t.hpp>
#include <cmath>
#include <limits>

#include "util/error.h"

namespace speedrun {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Around the first value, so that the mean of equal values is exactly that value.
double mean_of(std::span<const double> sample) {
    const double first = std::isfinite(sample.front()) ? sample.front() : 0;
    double sum = 0;
    for (const double x : sample) sum += x - first;
    return first + sum / static_cast<double>(sample.size());
}

// Two passes: the losses of a group differ in the fourth digit.
double variance_of(std::span<const double> sample, double mean) {
    if (sample.size() < 2) return kNan;
    double sum = 0;
    for (const double x : sample) sum += (x - mean) * (x - mean);
    return sum / static_cast<double>(sample.size() - 1);
}

double less_p_value(double t, double degrees) {
    if (std::isnan(t) || !(degrees > 0)) return kNan;
    if (std::isinf(t)) return t < 0 ? 0 : 1;
    return boost::math::cdf(boost::math::students_t(degrees), t);
}

Interval interval(double value, double error, double degrees, double confidence) {
    check(confidence > 0 && confidence < 1, "a confidence lies between 0 and 1");
    if (!std::isfinite(error) || std::isnan(value)) return {value, kNan, kNan, confidence, degrees};
    if (error == 0) return {value, value, value, confidence, degrees};
    const double margin = error * student_t_quantile(0.5 + confidence / 2, degrees);
    return {value, value - margin, value + margin, confidence, degrees};
}

}  // namespace

Summary summarize(std::span<const double> sample) {
    const auto n = static_cast<int64_t>(sample.size());
    if (sample.empty() || std::ranges::any_of(sample, [](double x) { return std::isnan(x); }))
        return {n, kNan, kNan, kNan, kNan};
    const double mean = mean_of(sample);
    const auto [low, high] = std::ranges::minmax(sample);
    return {n, mean, std::sqrt(variance_of(sample, mean)), low, high};
}

TTest t_test_less(std::span<const double> sample, double target) {
    const double degrees = static_cast<double>(sample.size()) - 1;
    if (sample.size() < 2) return {kNan, degrees, kNan};
    const double mean = mean_of(sample);
    const double error = std::sqrt(variance_of(sample, mean) / static_cast<double>(sample.size()));
    const double difference = mean - target;
    double t = difference / error;
    if (error == 0) t = difference == 0 ? kNan : std::copysign(kInfinity, difference);
    return {t, degrees, less_p_value(t, degrees)};
}

Interval mean_interval(std::span<const double> sample, double confidence) {
    const Summary s = summarize(sample);
    const double n = static_cast<double>(sample.size());
    return interval(s.mean, s.std / std::sqrt(n), n - 1, confidence);
}

Interval welch_interval(std::span<const double> baseline, std::span<const double> changed,
                        double confidence) {
    const Summary a = summarize(baseline), b = summarize(changed);
    const double va = a.std * a.std / static_cast<double>(a.n), vb = b.std * b.std / static_cast<double>(b.n);
    const double degrees = (va + vb) * (va + vb) /
                           (va * va / static_cast<double>(a.n - 1) + vb * vb / static_cast<double>(b.n - 1));
    return interval(b.mean - a.mean, std::sqrt(va + vb), degrees, confidence);
}

double student_t_quantile(double p, double degrees) {
    return boost::math::quantile(boost::math::students_t(degrees), p);
}

}  // namespace speedrun

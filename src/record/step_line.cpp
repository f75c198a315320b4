#include "record/step_line.h"

#include <array>
#include <charconv>
#include <cmath>

namespace speedrun {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Takes `prefix` off the front of `text`.
bool take(std::string_view& text, std::string_view prefix) {
    if (!text.starts_with(prefix)) return false;
    text.remove_prefix(prefix.size());
    return true;
}

template <typename Number>
bool take_number(std::string_view& text, Number& number) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) return false;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    return true;
}

bool take_count(std::string_view& text, int64_t& count) {
    return !text.empty() && is_digit(text.front()) && take_number(text, count);
}

// The decimals of a log: up to 15 digits are an exact integer and an exact power of ten, whose quotient is
// the nearest double. Everything else (more digits, exponents, nan, inf) is left to from_chars, which takes
// ten times as long.
bool take_decimal(std::string_view& text, double& number) {
    constexpr size_t kExactDigits = 15;
    static constexpr std::array kPowers = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                           1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    int64_t digits = 0;
    size_t at = 0, decimals = 0;
    while (at < text.size() && at <= kExactDigits && is_digit(text[at]))
        digits = 10 * digits + (text[at++] - '0');
    if (at > 0 && at < text.size() && text[at] == '.') {
        const size_t point = at++;
        while (at < text.size() && at <= kExactDigits && is_digit(text[at]))
            digits = 10 * digits + (text[at++] - '0');
        decimals = at - point - 1;
    }
    const bool ends = at == text.size() || !(is_digit(text[at]) || text[at] == 'e' || text[at] == 'E');
    if (at == 0 || at > kExactDigits || !ends) return take_number(text, number);
    number = static_cast<double>(digits) / kPowers[decimals];
    text.remove_prefix(at);
    return true;
}

bool take_loss(std::string_view& text, std::optional<double>& loss) {
    double value = 0;
    if (!take_decimal(text, value)) return false;
    loss = value;
    return true;
}

// "137582ms", "96.315s", "nanms" where `nan_allowed`.
bool take_time(std::string_view& text, std::optional<double>& ms, bool nan_allowed) {
    double value = 0;
    if (!take_decimal(text, value)) return false;
    if (std::isnan(value) ? !nan_allowed : !(value >= 0 && std::isfinite(value))) return false;
    if (take(text, "ms")) {
        ms = value;
    } else if (take(text, "s")) {
        ms = 1000 * value;
    } else {
        return false;
    }
    return true;
}

// A field that later versions added: name:value, whatever it is.
bool take_other(std::string_view& text) {
    const std::string_view word = text.substr(0, text.find(' '));
    const size_t colon = word.find(':');
    if (colon == 0 || colon == std::string_view::npos || colon + 1 == word.size()) return false;
    text.remove_prefix(word.size());
    return true;
}

bool take_field(std::string_view& text, StepLine& line) {
    if (take(text, "train_time:")) return take_time(text, line.train_time_ms, false);
    if (take(text, "step_avg:")) return take_time(text, line.step_avg_ms, true);
    if (take(text, "val_loss:") || take(text, "tel:")) return take_loss(text, line.val_loss);
    if (take(text, "train_loss:") || take(text, "trl:")) return take_loss(text, line.train_loss);
    return take_other(text);
}

bool take_fields(std::string_view text, StepLine& line) {
    while (!text.empty()) {
        if (!take(text, " ")) return false;
        if (text.empty() || text.front() == ' ') continue;
        if (!take_field(text, line)) return false;
    }
    return line.train_time_ms || line.val_loss || line.train_loss;
}

bool take_start(std::string_view& text, StepLine& line) {
    if (take(text, "s:")) return take_count(text, line.step);
    int64_t scheduled = 0;
    if (!take(text, "step:") || !take_count(text, line.step) || !take(text, "/") ||
        !take_count(text, scheduled))
        return false;
    line.scheduled_steps = scheduled;
    return true;
}

size_t skip_digits(std::string_view line, size_t at) {
    while (at < line.size() && is_digit(line[at])) ++at;
    return at;
}

// Whether `name` and a number, and `end` if it is not '\0', stand somewhere in the line.
bool has_number(std::string_view line, std::string_view name, char end) {
    for (size_t at = line.find(name); at != std::string_view::npos; at = line.find(name, at + 1)) {
        const size_t number = at + name.size(), behind = skip_digits(line, number);
        if (behind > number && (end == '\0' || (behind < line.size() && line[behind] == end))) return true;
    }
    return false;
}

}  // namespace

std::optional<StepLine> parse_step_line(std::string_view line) {
    StepLine parsed;
    if (!take_start(line, parsed) || !take_fields(line, parsed)) return std::nullopt;
    return parsed;
}

bool begins_like_step_line(std::string_view line) {
    if (take(line, "step:")) return !line.empty() && (is_digit(line.front()) || line.front() == '-');
    return take(line, "s:") && !line.empty() && is_digit(line.front());
}

bool mentions_step(std::string_view line) {
    return has_number(line, "step:", '/') || has_number(line, "val_loss:", '\0') ||
           has_number(line, "train_time:", '\0');
}

std::optional<TrialLine> parse_trial_line(std::string_view line) {
    int64_t trial = 0, trials = 0;
    if (!take(line, "trial:") || !take_count(line, trial) || !take(line, "/") || !take_count(line, trials))
        return std::nullopt;
    TrialLine parsed;
    uint64_t seed = 0;
    if (take(line, " seed:") && take_number(line, seed)) parsed.seed = seed;
    return parsed;
}

}  // namespace speedrun

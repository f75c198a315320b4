#include "record/log/step_line.h"

#include <array>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <utility>

namespace speedrun {
namespace {

static_assert(std::endian::native == std::endian::little, "the first digit is in the lowest byte");

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// The small readers below are inlined by order: a step line takes 40 ns, and calls that pass the text through
// memory were a quarter of it.

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

// Up to eight digits at once: `word` holds `count` of them, the first in its lowest byte. Neighbours are
// joined to numbers below 100, those to numbers below 10,000, those to the result.
uint64_t eight_digits(uint64_t word, int count) {
    uint64_t digits = (word - 0x3030303030303030) << (64 - 8 * count);  // zeros in front
    digits = digits * 10 + (digits >> 8);
    constexpr uint64_t kPairs = 0x000000FF000000FF;
    return ((digits & kPairs) * (100 + (1000000ull << 32)) +
            ((digits >> 16) & kPairs) * (1 + (10000ull << 32))) >>
           32;
}

// How many of the bytes of `word` are digits, from the lowest on. Above the first that is none nothing is
// true, as the subtraction borrows.
int leading_digits(uint64_t word) {
    const uint64_t value = word - 0x3030303030303030;
    return std::countr_zero(((value + 0x7676767676767676) | value) & 0x8080808080808080) / 8;
}

// Digits from `at` on, appended to `value`, which is meaningless after more than 19 of them.
[[gnu::always_inline]] inline const char* read_digits(const char* at, const char* end, uint64_t& value) {
    static constexpr std::array<uint64_t, 9> kPowers = {1,      10,      100,      1000,     10000,
                                                        100000, 1000000, 10000000, 100000000};
    while (end - at >= 8) {
        uint64_t word = 0;
        std::memcpy(&word, at, sizeof(word));
        const int count = leading_digits(word);
        if (count == 0) return at;
        value = value * kPowers[static_cast<size_t>(count)] + eight_digits(word, count);
        at += count;
        if (count < 8) return at;
    }
    for (; at != end && is_digit(*at); ++at) value = 10 * value + static_cast<uint64_t>(*at - '0');
    return at;
}

[[gnu::always_inline]] inline bool take_count(std::string_view& text, int64_t& count) {
    constexpr std::ptrdiff_t kSafeDigits = 18;  // 10^18 < 2^63
    uint64_t value = 0;
    const char* const begin = text.data();
    const std::ptrdiff_t digits = read_digits(begin, begin + text.size(), value) - begin;
    if (digits == 0) return false;
    if (digits > kSafeDigits) return take_number(text, count);
    count = static_cast<int64_t>(value);
    text.remove_prefix(static_cast<size_t>(digits));
    return true;
}

// The decimals of a log: up to 15 digits are an exact integer and an exact power of ten, whose quotient is
// the nearest double. Everything else (more digits, exponents, nan, inf) is left to from_chars, which takes
// longer.
[[gnu::always_inline]] inline bool take_decimal(std::string_view& text, double& number) {
    constexpr std::ptrdiff_t kExactDigits = 15;
    static constexpr std::array kPowers = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                           1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    uint64_t digits = 0;
    const char *const begin = text.data(), *const end = begin + text.size();
    const char* at = read_digits(begin, end, digits);
    std::ptrdiff_t decimals = 0;
    if (at != begin && at != end && *at == '.') {
        const char* const point = at;
        at = read_digits(point + 1, end, digits);
        decimals = at - point - 1;
    }
    const bool exponent = at != end && (*at == 'e' || *at == 'E');
    if (at == begin || at - begin > kExactDigits || exponent) return take_number(text, number);
    number = static_cast<double>(digits) / kPowers[static_cast<size_t>(decimals)];
    text.remove_prefix(static_cast<size_t>(at - begin));
    return true;
}

bool take_loss(std::string_view& text, std::optional<double>& loss) {
    double value = 0;
    if (!take_decimal(text, value)) return false;
    loss = value;
    return true;
}

// "137582ms", "96.315s", "nanms" where `nan_allowed`.
[[gnu::always_inline]] inline bool take_time(std::string_view& text, std::optional<double>& ms,
                                             bool nan_allowed) {
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
    if (take(text, "step_avg:")) return take_time(text, line.step_avg_ms, true);
    if (take(text, "train_time:")) return take_time(text, line.train_time_ms, false);
    if (take(text, "val_loss:") || take(text, "tel:")) return take_loss(text, line.val_loss);
    if (take(text, "val_ema_loss:")) return take_loss(text, line.val_ema_loss);
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
    std::optional<StepLine> parsed(std::in_place);
    if (!take_start(line, *parsed) || !take_fields(line, *parsed)) parsed.reset();
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

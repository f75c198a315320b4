#include "config/comm.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <numeric>

#include "config/notation.h"
#include "config/origins.h"
#include "util/error.h"
#include "util/shape.h"
#include "util/text.h"

namespace speedrun {
namespace {

const std::string bucket_allowed =
    "parameters or ranges of their dimension 0, such as \"embed\" or "
    "\"attn_qkvo+mlp_fc[0:6]\"";

// "[0:6]" of a dimension of `size`
std::pair<int64_t, int64_t> parse_range(std::string_view text, int64_t size) {
    const std::string allowed = "[begin:end] with 0 <= begin < end <= " + std::to_string(size);
    const size_t colon = text.find(':');
    const auto number = [&](std::string_view digits) {
        int64_t value = -1;
        const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
        if (error != std::errc{} || stop != digits.data() + digits.size())
            throw NotationError{"no range", allowed, ""};
        return value;
    };
    if (colon == std::string_view::npos || !text.ends_with(']')) throw NotationError{"no range", allowed, ""};
    const int64_t begin = number(text.substr(1, colon - 1));
    const int64_t end = number(text.substr(colon + 1, text.size() - colon - 2));
    if (begin < 0 || begin >= end || end > size) throw NotationError{"range out of bounds", allowed, ""};
    return {begin, end};
}

CommRange parse_part(std::string_view text, const ModelConfig& model) {
    const size_t bracket = text.find('[');
    const std::string name(text.substr(0, bracket));
    std::vector<std::string> names;
    for (const ParamConfig& param : model.params) {
        names.push_back(param.name);
        if (param.name != name) continue;
        if (bracket == std::string_view::npos) return {name, 0, param.shape[0]};
        const auto [begin, end] = parse_range(text.substr(bracket), param.shape[0]);
        return {name, begin, end};
    }
    throw NotationError{"the model has no parameter " + in_quotes(name), bucket_allowed,
                        nearest_name(name, names)};
}

}  // namespace

CommBucket parse_bucket(const std::string& text, const ModelConfig& model) {
    CommBucket bucket{text, {}};
    std::string_view rest = text;
    for (size_t plus = 0; plus != std::string_view::npos;) {
        plus = rest.find('+');
        bucket.ranges.push_back(parse_part(rest.substr(0, plus), model));
        if (plus != std::string_view::npos) rest.remove_prefix(plus + 1);
    }
    return bucket;
}

std::vector<CommBucket> comm_buckets(const Config& config) {
    std::vector<CommBucket> buckets;
    for (const std::string& text : config.optimizer.comm.scatter_order)
        buckets.push_back(parse_bucket(text, config.model));
    if (!buckets.empty()) return buckets;
    for (const ParamConfig& param : config.model.params)
        buckets.push_back({param.name, {{param.name, 0, param.shape[0]}}});
    return buckets;
}

std::vector<size_t> comm_work_order(const Config& config) {
    const auto buckets = comm_buckets(config);
    std::vector<size_t> order(buckets.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto& names = config.optimizer.comm.work_order;
    if (names.empty()) return order;
    order.clear();
    for (const std::string& name : names) {
        const auto found = std::ranges::find(buckets, name, &CommBucket::name);
        check(found != buckets.end(), "work_order names an unknown bucket in a validated config");
        order.push_back(static_cast<size_t>(found - buckets.begin()));
    }
    return order;
}

std::vector<std::vector<std::string>> contiguous_runs(const Config& config) {
    std::map<std::string, std::string> next, previous;
    for (const CommBucket& bucket : comm_buckets(config))
        for (size_t i = 1; i < bucket.ranges.size(); ++i) {
            next[bucket.ranges[i - 1].param] = bucket.ranges[i].param;
            previous[bucket.ranges[i].param] = bucket.ranges[i - 1].param;
        }
    std::vector<std::vector<std::string>> runs;
    for (const auto& [first, second] : next) {
        if (previous.contains(first)) continue;
        std::vector<std::string>& run = runs.emplace_back(1, first);
        for (auto at = next.find(first); at != next.end(); at = next.find(at->second))
            run.push_back(at->second);
    }
    return runs;
}

int64_t unit_elements(const ParamConfig& param, OptimParamConfig::Rule rule) {
    if (rule != OptimParamConfig::Rule::matrix) return param.shape.size() < 2 ? 1 : param.shape.back();
    return element_count(std::span(param.shape).subspan(1));
}

}  // namespace speedrun

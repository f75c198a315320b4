#include <algorithm>
#include <map>
#include <set>

#include "config/comm.h"
#include "config/notation.h"
#include "config/validate.h"
#include "util/text.h"

namespace speedrun {
namespace {

const std::string scatter_path = "optimizer.comm.scatter_order";

const OptimParamConfig& row_of(const Config& config, const std::string& param) {
    return *std::ranges::find(config.optimizer.params, param, &OptimParamConfig::param);
}

std::vector<CommBucket> read_buckets(const Config& config, const Report& report) {
    std::vector<CommBucket> buckets;
    const auto& texts = config.optimizer.comm.scatter_order;
    for (size_t i = 0; i < texts.size(); ++i) {
        try {
            buckets.push_back(parse_bucket(texts[i], config.model));
        } catch (const NotationError& error) {
            report.fail(join_path(scatter_path, i), error.what,
                        {in_quotes(texts[i]), error.allowed, error.nearest});
        }
    }
    return buckets;
}

// One collective carries one dtype, and each rank whole units.
void check_alike(const Config& config, const CommBucket& bucket, const std::string& path,
                 const Report& report) {
    const ParamConfig& first = config.model.param(bucket.ranges.front().param);
    const auto [rule, comm] = std::pair{row_of(config, first.name).rule, row_of(config, first.name).comm};
    for (const CommRange& range : bucket.ranges) {
        const ParamConfig& param = config.model.param(range.param);
        if (row_of(config, param.name).rule != rule || row_of(config, param.name).comm != comm ||
            param.dtype != first.dtype || unit_elements(param, rule) != unit_elements(first, rule))
            report.fail(
                path, in_quotes(param.name) + " and " + in_quotes(first.name) + " differ too much",
                {in_quotes(bucket.name), "one rule, comm, dtype and size of an entry in a bucket", ""});
    }
}

// The parts of a bucket follow each other in memory: each ends where its parameter ends, the next begins
// where its parameter begins, and a parameter has one neighbour on either side.
void check_adjacent(const Config& config, const std::vector<CommBucket>& buckets, const Report& report) {
    std::map<std::string, std::string> next, previous;
    for (size_t i = 0; i < buckets.size(); ++i) {
        const auto& ranges = buckets[i].ranges;
        const auto fail = [&](const CommRange& range) {
            report.fail(join_path(scatter_path, i),
                        in_quotes(range.param) + " does not follow what is in front of it",
                        {in_quotes(buckets[i].name),
                         "a range up to a parameter's end, then one from a parameter's begin; everywhere the "
                         "same neighbours",
                         ""});
        };
        for (size_t k = 1; k < ranges.size(); ++k) {
            const CommRange &before = ranges[k - 1], &after = ranges[k];
            if (before.end != config.model.param(before.param).shape[0] || after.begin != 0) fail(after);
            if (!next.emplace(before.param, after.param).second) fail(after);
            if (!previous.emplace(after.param, before.param).second) fail(after);
            for (auto at = next.find(after.param); at != next.end(); at = next.find(at->second))
                if (at->second == before.param) fail(after);  // a ring
            if (after.param == before.param) fail(after);
        }
    }
}

void check_each_once(const Config& config, const std::vector<CommBucket>& buckets, const Report& report) {
    for (const ParamConfig& param : config.model.params) {
        std::vector<CommRange> parts;
        for (const CommBucket& bucket : buckets)
            std::ranges::copy_if(bucket.ranges, std::back_inserter(parts),
                                 [&](const CommRange& range) { return range.param == param.name; });
        std::ranges::sort(parts, {}, &CommRange::begin);
        int64_t next = 0;
        bool in_order = true;
        for (const CommRange& part : parts) {
            in_order = in_order && part.begin == next;
            next = part.end;
        }
        const int64_t entries = param.shape[0];
        if (!in_order || next != entries)
            report.fail(scatter_path, "does not hold every entry of " + in_quotes(param.name) + " once",
                        {std::to_string(parts.size()) + " parts",
                         "parts that make up [0:" + std::to_string(entries) + "]", ""});
    }
}

void check_work_order(const Config& config, const Report& report) {
    const CommConfig& comm = config.optimizer.comm;
    if (comm.work_order.empty()) return;
    std::vector<std::string> buckets;
    for (const CommBucket& bucket : comm_buckets(config)) buckets.push_back(bucket.name);
    std::set<std::string> seen;
    for (size_t i = 0; i < comm.work_order.size(); ++i) {
        const std::string& name = comm.work_order[i];
        const std::string path = join_path("optimizer.comm.work_order", i);
        if (std::ranges::find(buckets, name) == buckets.end())
            report.fail_name(path, "no bucket of scatter_order", name, buckets);
        if (!seen.insert(name).second)
            report.fail(path, "named twice", {in_quotes(name), "each bucket of scatter_order once", ""});
    }
    for (const std::string& name : buckets)
        if (!seen.contains(name))
            report.fail("optimizer.comm.work_order", "leaves out " + in_quotes(name),
                        {"", "each bucket of scatter_order once", ""});
}

// A parameter that rests while others step has buckets of its own, and a rule that can let it rest.
void check_may_rest(const Config& config, const std::string& param, const std::string& path,
                    const Report& report) {
    std::vector<std::string> names;
    for (const ParamConfig& one : config.model.params) names.push_back(one.name);
    if (std::ranges::find(names, param) == names.end())
        report.fail_name(path, "the model has no such parameter", param, names);
    if (row_of(config, param).rule != OptimParamConfig::Rule::adam)
        report.fail(path, in_quotes(param) + " is not adam's", {"matrix", "a parameter with optim adam", ""});
    for (const CommBucket& bucket : comm_buckets(config))
        if (bucket.ranges.size() > 1 &&
            std::ranges::find(bucket.ranges, param, &CommRange::param) != bucket.ranges.end())
            report.fail(path, in_quotes(param) + " shares a bucket",
                        {in_quotes(bucket.name), "a parameter with a bucket of its own", ""});
}

void check_resting(const Config& config, const Report& report) {
    const auto& frozen = config.schedule.freeze.params;
    for (size_t i = 0; i < frozen.size(); ++i)
        check_may_rest(config, frozen[i], join_path("schedule.freeze.params", i), report);
    const auto& input = config.model.input;
    if (input.tied_to.empty()) return;
    check_may_rest(config, input.tied_to, "model.input.tied_to", report);
    check_may_rest(config, input.token, "model.input.token", report);
    const ParamConfig &table = config.model.param(input.token), &source = config.model.param(input.tied_to);
    if (table.shape != source.shape || table.dtype != source.dtype)
        report.fail("model.input.tied_to",
                    "differs from " + in_quotes(input.token) + ", which becomes a copy",
                    {in_quotes(input.tied_to), "a parameter of the same shape and dtype", ""});
}

// Gradients by rows are those of a table whose rows the host knows, in one bucket that holds nothing else.
void check_sparse(const Config& config, const Report& report) {
    const auto& bigram = config.model.input.bigram;
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.comm != OptimParamConfig::Comm::sharded_sparse) continue;
        const std::string path = "optimizer.params." + row.param;
        if (!bigram || bigram->table != row.param)
            report.fail(path + ".comm", in_quotes(row.param) + " is not looked up by rows of hashes",
                        {"\"sharded_sparse\"",
                         bigram ? "sharded, replicated; sharded_sparse for " + in_quotes(bigram->table) +
                                      ", the table of model.input.bigram"
                                : "sharded, replicated, as there is no model.input.bigram",
                         ""});
        if (row.rule != OptimParamConfig::Rule::adam)
            report.fail(path + ".comm", "a rule of matrices reads every row",
                        {"\"sharded_sparse\"", "sharded, replicated; sharded_sparse with optim adam", ""});
        for (const CommBucket& bucket : comm_buckets(config))
            for (const CommRange& range : bucket.ranges)
                if (range.param == row.param &&
                    (bucket.ranges.size() > 1 ||
                     range.end - range.begin != config.model.param(row.param).shape[0]))
                    report.fail(path + ".comm", "the parameter shares or splits a bucket",
                                {in_quotes(bucket.name),
                                 "a bucket of " + in_quotes(row.param) + " alone, whole", ""});
    }
}

}  // namespace

void validate_comm(const Config& config, const Report& report) {
    const auto buckets = read_buckets(config, report);
    for (size_t i = 0; i < buckets.size(); ++i)
        check_alike(config, buckets[i], join_path(scatter_path, i), report);
    if (!buckets.empty()) {
        check_adjacent(config, buckets, report);
        check_each_once(config, buckets, report);
    }
    check_work_order(config, report);
    check_resting(config, report);
    check_sparse(config, report);
}

}  // namespace speedrun

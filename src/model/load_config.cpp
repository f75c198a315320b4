#include "model/load_config.h"

#include "config/comm.h"
#include "config/read_config.h"
#include "model/graph/graph.h"
#include "util/error.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

// One collective carries what forward reads of each member.
void check_buckets(const Config& config, const Graph& graph, const Report& report) {
    const auto& names = config.optimizer.comm.scatter_order;
    for (size_t i = 0; i < names.size(); ++i) {
        const CommBucket bucket = parse_bucket(names[i], config.model);
        const std::string& first = bucket.ranges.front().param;
        for (const CommRange& range : bucket.ranges)
            if (graph.multiplies(range.param) != graph.multiplies(first))
                report.fail(join_path("optimizer.comm.scatter_order", i),
                            in_quotes(range.param) + " and " + in_quotes(first) + " differ too much",
                            {in_quotes(names[i]), "one use (multiplied or looked up) in a bucket", ""});
    }
}

// Rows that other nodes give a gradient would be left out.
void check_sparse(const Config& config, const Graph& graph, const Report& report) {
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.comm != OptimParamConfig::Comm::sharded_sparse) continue;
        for (const auto& node : graph.nodes())
            for (const WeightUse& use : node->weights())
                if (use.weight.param == row.param && node->name() != "model.input.bigram")
                    report.fail(
                        "optimizer.params." + row.param + ".comm",
                        node->name() + " reads " + in_quotes(row.param) + " too",
                        {"\"sharded_sparse\"",
                         "sharded, replicated; sharded_sparse where only model.input.bigram reads it", ""});
    }
}

}  // namespace

Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
    ConfigDraft draft = read_config(file, overrides);
    const Graph graph = compile(draft.config, draft.origins);
    check_buckets(draft.config, graph, Report(draft.origins));
    check_sparse(draft.config, graph, Report(draft.origins));
    return std::move(draft.config);
}

Config load_saved_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
    const Json root = read_json_file(file);
    if (root.is_object() && root.contains("extends"))
        throw UserError(file.string() + ": extends: found " + brief_json(root["extends"]) +
                        "; a config that a run has saved is whole and extends nothing");
    return load_config(file, overrides);
}

}  // namespace speedrun

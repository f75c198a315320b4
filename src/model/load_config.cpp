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

}  // namespace

Config load_config(const std::filesystem::path& file, std::span<const std::string> overrides) {
    ConfigDraft draft = read_config(file, overrides);
    const Graph graph = compile(draft.config, draft.origins);
    check_buckets(draft.config, graph, Report(draft.origins));
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

#include "plan/scaling.h"

#include <algorithm>
#include <numeric>

namespace speedrun {
namespace {

std::string reason(const ScalingRow& next, int64_t ranks_per_node) {
    const std::string limit = next.floor.limit();
    if (limit == "optimizer")
        return "a rank updates whole matrices, and the rank that has most of them has no fewer";
    if (limit == "network latency")
        return "every collective passes every rank" +
               std::string(next.ranks > ranks_per_node ? " and every node" : "") +
               ", so its start and hops take longer the more there are";
    if (limit == "network bandwidth")
        return "gradients and weights are as large as before, and each rank still sends or receives nearly "
               "all "
               "of them" +
               std::string(next.ranks > ranks_per_node ? ", now between nodes" : "");
    if (limit == "memory")
        return "every micro-batch reads all weights and writes all gradients, however few its tokens";
    return "part of it, the update of whole matrices, does not shrink with more ranks";
}

}  // namespace

int64_t common_batch_tokens(const Config& config) {
    int64_t common = 0;
    for (const Stage& stage : config.schedule.stages) common = std::gcd(common, stage.batch_tokens);
    return common;
}

std::vector<ScalingRow> scaling_table(const Config& config, const Machine& machine, int64_t ranks_per_node,
                                      int64_t most) {
    const int64_t batch = common_batch_tokens(config);
    const Graph graph = compile(config);
    std::vector<ScalingRow> rows;
    for (int64_t ranks = 1; ranks <= most && batch % ranks == 0; ranks *= 2) {
        ScalingRow row;
        row.ranks = ranks;
        Config split = config;
        row.rows = split.data.rows = std::lcm(config.data.rows, ranks);
        if (batch % row.rows != 0) break;
        row.split = row.rows != config.data.rows;
        row.row_tokens = largest_step(split, false).row_tokens;
        row.accumulation = row.rows / ranks;
        row.floor = mean_floor(split, graph, plan_ownership(config, ranks), machine, ranks_per_node);
        if (!rows.empty())
            row.efficiency =
                rows.front().floor.overlapped() / (static_cast<double>(ranks) * row.floor.overlapped());
        rows.push_back(row);
    }
    return rows;
}

size_t last_worthwhile(const std::vector<ScalingRow>& rows) {
    constexpr double kGain = 0.8;
    for (size_t i = 0; i + 1 < rows.size(); ++i)
        if (rows[i + 1].floor.overlapped() > kGain * rows[i].floor.overlapped()) return i;
    return rows.size() - 1;
}

std::string scaling_text(const Config& config, const std::vector<ScalingRow>& rows, const Machine& machine,
                         int64_t ranks_per_node) {
    const size_t last = last_worthwhile(rows);
    std::string text;
    if (last + 1 < rows.size())
        text = "It stops scaling at " + std::to_string(rows[last].ranks) + " ranks of " + machine.name +
               ": from there to " + std::to_string(rows[last + 1].ranks) + " the limit is " +
               rows[last + 1].floor.limit() + " - " + reason(rows[last + 1], ranks_per_node) + ".";
    else
        text = "It scales to the " + std::to_string(rows[last].ranks) + " ranks of the table's end.";
    if (rows.back().split)
        text += " The batch has " + std::to_string(config.data.rows) +
                " rows; more ranks than that need more and shorter ones (data.rows), which cut documents at "
                "other "
                "places and begin positions anew: the same number of tokens, but not the same run.";
    return text;
}

}  // namespace speedrun

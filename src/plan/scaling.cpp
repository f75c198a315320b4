#include "plan/scaling.h"

#include <algorithm>
#include <numeric>

#include "plan/rank_memory.h"

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
    const int64_t batch = common_batch_tokens(config), per_token = activation_bytes_per_token(config);
    std::vector<ScalingRow> rows;
    for (int64_t ranks = 1; ranks <= most && batch % ranks == 0; ranks *= 2) {
        ScalingRow row;
        row.ranks = ranks;
        row.micro_batch_tokens = std::gcd(config.data.micro_batch_tokens, batch / ranks);
        row.shortened = row.micro_batch_tokens != config.data.micro_batch_tokens;
        row.accumulation = largest_step(config, false).batch_tokens / ranks / row.micro_batch_tokens;
        row.floor = mean_floor(config, plan_ownership(config, ranks), machine,
                               {ranks_per_node, row.micro_batch_tokens, per_token});
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
    const int64_t whole = common_batch_tokens(config) / config.data.micro_batch_tokens;
    std::string text;
    if (last + 1 < rows.size())
        text = "It stops scaling at " + std::to_string(rows[last].ranks) + " ranks of " + machine.name +
               ": from there to " + std::to_string(rows[last + 1].ranks) + " the limit is " +
               rows[last + 1].floor.limit() + " - " + reason(rows[last + 1], ranks_per_node) + ".";
    else
        text = "It scales to the " + std::to_string(rows[last].ranks) + " ranks of the table's end.";
    if (rows.back().shortened)
        text += " The batch has " + std::to_string(whole) + " micro-batches of " +
                std::to_string(config.data.micro_batch_tokens) +
                " tokens; more ranks than that need smaller ones (data.micro_batch_tokens), whose rows cut "
                "documents at other places: the same number of tokens, but not the same run.";
    return text;
}

}  // namespace speedrun

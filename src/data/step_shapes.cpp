#include "data/step_shapes.h"

#include <algorithm>
#include <string>

#include "util/error.h"

namespace speedrun {
namespace {

// Of the counts of ranks that the rows divide over, the nearest below and above, as text.
std::string nearest_counts(int64_t rows, int64_t world_size) {
    int64_t below = std::min(world_size - 1, rows), above = world_size + 1;
    while (rows % below != 0) --below;
    while (above <= rows && rows % above != 0) ++above;
    return std::to_string(below) + (above <= rows ? " or " + std::to_string(above) : "");
}

}  // namespace

std::vector<StepShape> step_shapes(const Config& config) {
    std::vector<StepShape> shapes;
    for (int64_t step = 0; step < config.schedule.total_steps(); ++step)
        shapes.push_back(step_shape(config.data, settings_at(config, step)));
    return shapes;
}

StepShape step_shape(const DataConfig& data, const StepSettings& settings) {
    return {
        data.rows, {settings.row_tokens, data.cu_seqlens_entries(settings.row_tokens)}, settings.max_seq_len};
}

int64_t grad_accum_steps(const Config& config, int64_t world_size) {
    const int64_t rows = config.data.rows;
    if (rows % world_size != 0)
        throw UserError("data.rows: the " + std::to_string(rows) + " rows of a batch do not divide over " +
                        std::to_string(world_size) + " ranks; the nearest counts that do: " +
                        nearest_counts(rows, world_size) + " (or more and shorter rows)");
    return rows / world_size;
}

}  // namespace speedrun

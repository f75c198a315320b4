#pragma once
#include "config/fields.h"

namespace speedrun {

// Every key of a config file, its type, its range and what it means. Order matters to the reader: parameters
// are known before the layers that name them, dimensions before the parameters.
void visit_config(Fields& fields, Config& config);

void visit_data(Fields& fields, DataConfig& data);
void visit_model(Fields& fields, ModelConfig& model);
void visit_layer(Fields& fields, LayerConfig& layer);
void visit_objective(Fields& fields, ObjectiveConfig& objective);
void visit_numerics(Fields& fields, NumericsConfig& numerics);
void visit_optimizer(Fields& fields, OptimizerConfig& optimizer);
void visit_matrix(Fields& fields, MatrixConfig& matrix);
void visit_schedule(Fields& fields, ScheduleConfig& schedule);
void visit_runtime(Fields& fields, RuntimeConfig& runtime);

inline constexpr std::array dtype_names{"fp32", "bf16"};
inline constexpr int64_t max_steps = int64_t{1} << 31;
inline constexpr IntRange positive{1, int64_t{1} << 31};
inline constexpr IntRange steps_range{0, max_steps};
inline constexpr NumberRange not_negative{0};
inline constexpr NumberRange above_zero{0, std::numeric_limits<double>::max(), false, true};
inline constexpr NumberRange below_one{0, 1, true, false};
inline constexpr NumberRange any_number{std::numeric_limits<double>::lowest()};

}  // namespace speedrun

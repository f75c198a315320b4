#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <numeric>

#include "app/bench/ops/rows.h"
#include "config/matrix_rules.h"
#include "model/parameters.h"
#include "ops/dtype.h"
#include "ops/gemm.h"
#include "ops/optim/orthogonalize.h"
#include "optim/matrices.h"
#include "optim/matrix_pipeline.h"
#include "optim/orthogonality.h"
#include "optim/rule.h"
#include "util/shape.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

using Calls = std::function<void()>;
using Method = MatrixConfig::Orthogonalize::Method;

// What rows of one parameter are made from; copies are made before they are timed.
struct Update {
    const Config& config;
    OptimParamConfig row;
    ParamConfig param;
    at::ScalarType dtype;  // of master and gradient
    bool copied;           // whether forward reads a copy, in the activations' dtype
    double momentum, lr_scale;
    at::Device device;

    double elements() const { return static_cast<double>(element_count(param.shape)); }
    double value_bytes() const { return elements() * static_cast<double>(c10::elementSize(dtype)); }
    double copy_bytes() const {
        return copied ? elements() *
                            static_cast<double>(c10::elementSize(scalar_type(config.numerics.activations)))
                      : 0;
    }
    at::ScalarType update_dtype() const { return scalar_type(config.optimizer.matrix.orthogonalize.dtype); }
    double update_bytes() const { return elements() * static_cast<double>(c10::elementSize(update_dtype())); }

    Parameter make() const {
        const auto options = at::device(device).dtype(dtype);
        Parameter part{param, at::randn(param.shape, options), at::randn(param.shape, options), {}};
        part.used =
            copied ? part.value.to(scalar_type(config.numerics.activations), false, true) : part.value;
        return part;
    }
};

Update update_of(const Config& config, const Graph& graph, const OptimParamConfig& row,
                 const StepSettings& settings, at::Device device) {
    const ParamConfig& param = config.model.param(row.param);
    const bool fp32 = config.numerics.params == NumericsConfig::Params::fp32;
    const at::ScalarType dtype = fp32 ? at::kFloat : scalar_type(param.dtype);
    const bool copied = graph.multiplies(param.name) && dtype != scalar_type(config.numerics.activations);
    return {config, row, param, dtype, copied, settings.muon_momentum, settings.lr_scale, device};
}

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text;
    for (const int64_t size : shape) text.append(text.empty() ? "" : "x").append(std::to_string(size));
    return text;
}

// The gradient is used up by the first call; what follows computes as much on zeros and old state.
Op whole_rule(const Update& u, double per_step) {
    const bool adam = u.row.rule == OptimParamConfig::Rule::adam;
    const auto meta = make_meta_rule(u.config.optimizer, u.row, u.param, u.dtype);
    return {.name = std::string(adam ? "adam." : "matrix.").append(u.row.param),
            .shape = shape_text(u.param.shape),
            .per_step = per_step,
            .flop = meta->cost(u.device.is_cpu()).flop,
            .bytes = 4 * u.value_bytes() + u.copy_bytes() + 2 * static_cast<double>(meta->state_bytes()),
            .prepare = [u]() -> Calls {
                const auto part = std::make_shared<Parameter>(u.make());
                const std::shared_ptr<UpdateRule> rule = make_rule(u.config.optimizer, u.row, *part);
                return [=, step = RuleStep{u.lr_scale, u.momentum, 0}]() mutable {
                    ++step.t;
                    rule->step(*part, step);
                };
            }};
}

// Whether momentum, orthogonalisation and update are all that the rule does.
bool is_plain_pipeline(const MatrixConfig& config) {
    const size_t index = matrix_rule_index(config.rule);
    const Method method = config.orthogonalize.method;
    return (matrix_rules[index].parts & matrix_part::pipeline) != 0 &&
           (method == Method::polar_express || method == Method::newton_schulz) &&
           config.signs == MatrixConfig::Signs::keep && !config.orthogonalize.power && config.contra == 0 &&
           !config.row_norms && config.direction.kind == MatrixConfig::Direction::Kind::momentum &&
           config.momentum.form != MatrixConfig::Momentum::Form::none &&
           config.length.kind == MatrixConfig::Length::Kind::free && config.length.floor == 0 &&
           config.length.outward == 1 && config.length.inward == 1 &&
           config.decay != MatrixConfig::Decay::cautious_last &&
           config.second_moment != MatrixConfig::SecondMoment::matrix &&
           (config.second_moment != MatrixConfig::SecondMoment::none ||
            config.scale != MatrixConfig::Scale::paper);
}

Op part_of_rule(const Update& u, double per_step, const std::string& what, double bytes, double flop,
                std::function<Calls()> prepare) {
    const std::string whole = std::string("matrix.").append(u.row.param);
    return {.name = whole + what,
            .shape = shape_text({u.row.matrix_view.begin(), u.row.matrix_view.end()}),
            .per_step = per_step,
            .within = whole,
            .flop = flop,
            .bytes = bytes,
            .prepare = std::move(prepare)};
}

// X X^T, the first product of each iteration: as it is computed, and whole. All matrices at once.
void add_first_product(const Update& u, double per_step, std::vector<Op>& ops) {
    const auto [count, rows, cols] = u.row.matrix_view;
    const std::vector<int64_t> x_shape{count, std::min(rows, cols), std::max(rows, cols)},
        c_shape{count, x_shape[1], x_shape[1]};
    const double row_pairs = static_cast<double>(count * x_shape[1] * x_shape[1]),
                 bytes =
                     u.update_bytes() + row_pairs * static_cast<double>(c10::elementSize(u.update_dtype())),
                 flop = 2 * row_pairs * static_cast<double>(x_shape[2]);
    const double calls = per_step * static_cast<double>(u.config.optimizer.matrix.orthogonalize.iters);
    for (const bool whole : {false, true})
        ops.push_back(part_of_rule(
            u, calls, whole ? ".xxt.whole" : ".xxt", bytes, whole ? flop : flop / 2, [=]() -> Calls {
                const auto options = at::device(u.device).dtype(u.update_dtype());
                const at::Tensor x = at::empty(x_shape, options).normal_(), c = at::empty(c_shape, options);
                if (whole) return [=] { ops::batched_gemm(x, x.mT(), c); };
                return [=] { ops::batched_gram(x, c); };
            }));
}

// Group after group, as MatrixPipeline::step goes.
void add_parts(const Update& u, double per_step, std::vector<Op>& ops) {
    const auto groups = [u] {
        const auto part = std::make_shared<Parameter>(u.make());
        return std::make_pair(part, Matrices(*part, u.row));
    };
    ops.push_back(
        part_of_rule(u, per_step, ".momentum", 4 * u.value_bytes() + u.update_bytes(), 0, [=]() -> Calls {
            const auto [part, all] = groups();
            const at::Tensor momentum = at::zeros_like(all.grad);
            return [=, all = all] {
                all.for_each_group([&](const auto& of) {
                    const at::Tensor update =
                        at::empty(of(all.value).sizes(), all.value.options().dtype(u.update_dtype()));
                    ops::momentum_update(of(all.grad), of(momentum), update, u.momentum,
                                         u.config.optimizer.matrix.momentum);
                });
            };
        }));
    const MatrixConfig::Orthogonalize ortho = u.config.optimizer.matrix.orthogonalize;
    const auto& [matrices, rows, cols] = u.row.matrix_view;
    ops.push_back(part_of_rule(
        u, per_step, ".orthogonalize", 2 * u.update_bytes(),
        static_cast<double>(matrices) * orthogonalize_flop(rows, cols, ortho), [=]() -> Calls {
            const auto [part, all] = groups();
            const at::Tensor update = all.grad.to(u.update_dtype());
            return [=, all = all] {
                all.for_each_group([&](const auto& of) { ops::orthogonalize(of(update), ortho); });
            };
        }));
    add_first_product(u, per_step, ops);
    ops.push_back(part_of_rule(
        u, per_step, ".update", u.update_bytes() + 2 * u.value_bytes() + u.copy_bytes(), 0, [=]() -> Calls {
            const auto [part, all] = groups();
            const MatrixPipeline pipeline({u.config.optimizer.matrix, u.row, *part});
            const ops::MatrixStep step = pipeline.numbers({u.lr_scale, u.momentum, 1, {}});
            const auto state = pipeline.state();
            const at::Tensor second_moment = step.moments ? state[1].tensor : at::Tensor();
            const at::Tensor update = all.grad.to(u.update_dtype());
            return [=, all = all] {
                all.for_each_group([&](const auto& of) {
                    ops::apply_matrix_update(of(update), {}, of(second_moment), of(all.value), of(all.copy),
                                             step);
                });
            };
        }));
}

}  // namespace

std::vector<Op> optimizer_ops(const Config& config, const Graph& graph, const StepSettings& settings,
                              at::Device device) {
    std::vector<Op> ops;
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.rule == OptimParamConfig::Rule::none) continue;
        const bool adam = row.rule == OptimParamConfig::Rule::adam;
        const double per_step = adam ? 1 / static_cast<double>(config.optimizer.adam.every_n_steps) : 1;
        const Update update = update_of(config, graph, row, settings, device);
        ops.push_back(whole_rule(update, per_step));
        if (!adam && is_plain_pipeline(config.optimizer.matrix)) add_parts(update, per_step, ops);
    }
    return ops;
}

}  // namespace speedrun

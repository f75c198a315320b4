#include <algorithm>

#include "config/matrix_rules.h"
#include "config/sections.h"

namespace speedrun {
namespace {

void visit_adam(Fields& f, AdamConfig& adam) {
    f.number({"lr", "learning rate before lr_mul and the schedule"}, adam.lr, not_negative);
    std::vector<double> betas{adam.beta1, adam.beta2};
    f.numbers({"betas", "decay of the first and the second moment"}, betas, below_one, {2, 2});
    if (betas.size() == 2) adam.beta1 = betas[0], adam.beta2 = betas[1];
    f.number({"eps", "added to sqrt(v)"}, adam.eps, above_zero);
    f.number({"weight_decay", "coefficient of `decay`"}, adam.weight_decay, not_negative);
    f.choice({"decay",
              "with c of decay_coefficient, decoupled: p *= 1 - c; cautious: u += c p where u p >= 0; "
              "cautious_strict: where u p > 0",
              optional_key},
             adam.decay, std::array{"decoupled", "cautious", "cautious_strict"});
    f.choice({"decay_coefficient", "c = weight_decay * wd_mul * lr, or * lr^2; lr_mul and schedule included",
              optional_key},
             adam.decay_coefficient, std::array{"lr", "lr_squared"});
    f.choice({"state_dtype", "of the moments (fewer than 2 dimensions: fp32)", optional_key},
             adam.state_dtype, dtype_names);
    f.integer({"every_n_steps", "updates when step % n == n - 1; gradients in between add up", optional_key},
              adam.every_n_steps, {1, max_steps});
}

void visit_momentum(Fields& f, MatrixConfig::Momentum& momentum) {
    f.choice({"form", "lerp: m = mu m + (1 - mu) g; accumulate: m = mu m + g", optional_key}, momentum.form,
             std::array{"lerp", "accumulate"});
    f.choice({"dtype", "of m: the gradient's, or fp32", optional_key}, momentum.dtype,
             std::array{"gradient", "fp32"});
    f.boolean({"nesterov", "update from gradient and momentum, not momentum alone", optional_key},
              momentum.nesterov);
    f.number({"min", "mu at the start and at the end", optional_key}, momentum.min, below_one);
    f.number({"max", "mu in between", optional_key}, momentum.max, below_one);
    f.integer({"warmup_steps", "from min to max", optional_key}, momentum.warmup_steps, steps_range);
    f.integer({"cooldown_steps", "from max back to min", optional_key}, momentum.cooldown_steps, steps_range);
}

void visit_orthogonalize(Fields& f, MatrixConfig::Orthogonalize& ortho) {
    f.choice({"method",
              "coefficients of the iteration; preconditioner: a running average of (G G^T)^(-1/2); none: the "
              "momentum as it is",
              optional_key},
             ortho.method, std::array{"polar_express", "newton_schulz", "preconditioner", "none"});
    f.integer({"iters", "iterations", optional_key}, ortho.iters, {1, 20});
    f.choice({"dtype", "of the iteration's matrices", optional_key}, ortho.dtype, dtype_names);
    f.number({"norm_safety", "X /= ||X|| * norm_safety + norm_eps", optional_key}, ortho.norm_safety,
             above_zero);
    f.number({"norm_eps", "see norm_safety", optional_key}, ortho.norm_eps, not_negative);
}

void visit_preconditioner(Fields& f, MatrixConfig::Preconditioner& p) {
    f.integer({"every_n_steps", "made anew in the 1st, (n+1)-th, ... step", optional_key}, p.every_n_steps,
              {1, max_steps});
    f.number({"beta", "of its running average; 1: a sum (shampoo only)", optional_key}, p.beta, {0, 1});
    f.number({"eps", "shampoo: added to the diagonal", optional_key}, p.eps, not_negative);
    f.boolean({"normalize_input", "running root: multiplies u / ||u||, not u as published", optional_key},
              p.normalize_input);
    f.integer({"max_size", "shampoo and soap: longer sides are left as they are", optional_key}, p.max_size,
              {0, 1 << 20});
}

// The rule chooses what the keys after it are where they are absent.
void visit_rule(Fields& f, MatrixConfig& matrix) {
    std::array<const char*, matrix_rules.size()> names{};
    std::ranges::transform(matrix_rules, names.begin(), &MatrixRule::name);
    const size_t before = matrix_rule_index(matrix.rule);
    size_t index = before;
    f.pick({"rule", "what updates matrices; chooses every part that is not given"}, index, names);
    if (index != before) matrix = matrix_defaults(names[index]);
}

void visit_pipeline(Fields& f, MatrixConfig& matrix) {
    f.object({"orthogonalize", "towards the polar factor", optional_key},
             [&](Fields& o) { visit_orthogonalize(o, matrix.orthogonalize); });
    f.choice({"signs", "of the entries: kept, or those of the gradient or the momentum", optional_key},
             matrix.signs, std::array{"keep", "gradient", "momentum"});
    f.choice({"second_moment", "what has a number of its own: rows, columns or matrices", optional_key},
             matrix.second_moment, std::array{"none", "rows", "columns", "longer_side", "matrix"});
    f.choice({"eps_form", "clamp: x / sqrt(max(v, eps)); add: x / (sqrt(v) + eps)", optional_key},
             matrix.eps_form, std::array{"clamp", "add"});
    f.boolean({"bias_correction", "of the second moment: v / (1 - beta2^t)", optional_key},
              matrix.bias_correction);
    f.choice({"scale", "restore_norm: as before the second moment; paper: ||u|| = 0.2 sqrt(rows cols)",
              optional_key},
             matrix.scale, std::array{"restore_norm", "paper", "none"});
    f.choice(
        {"scale_factor", "rows_over_cols: sqrt(max(1, rows / cols)); longer_side: 0.2 sqrt(max(rows, cols))",
         optional_key},
        matrix.scale_factor, std::array{"none", "rows_over_cols", "longer_side"});
}

void visit_matrix(Fields& f, MatrixConfig& matrix) {
    visit_rule(f, matrix);
    const unsigned parts = f.describes() ? ~0U : matrix_rule(matrix.rule).parts;
    f.number({"lr", "learning rate before lr_mul and the schedule", optional_key}, matrix.lr, not_negative);
    f.number({"weight_decay", "coefficient of `decay`", optional_key}, matrix.weight_decay, not_negative);
    f.choice(
        {"decay", "with c of decay_coefficient, decoupled: p *= 1 - c; cautious: u += c p where u p >= 0",
         optional_key},
        matrix.decay, std::array{"none", "decoupled", "cautious"});
    f.choice({"decay_coefficient", "c = weight_decay * lr, weight_decay * the schedule's scale, weight_decay",
              optional_key},
             matrix.decay_coefficient, std::array{"lr", "schedule", "constant"});
    if (parts & matrix_part::momentum)
        f.object({"momentum", "its form, and its schedule", optional_key},
                 [&](Fields& m) { visit_momentum(m, matrix.momentum); });
    if (parts & matrix_part::moments)
        f.number({"beta1", "decay of the first moment", optional_key}, matrix.beta1, below_one);
    if (parts & (matrix_part::moments | matrix_part::pipeline)) {
        f.number({"beta2", "decay of the second moment", optional_key}, matrix.beta2, below_one);
        f.number({"eps", "what keeps from division by 0", optional_key}, matrix.eps, above_zero);
    }
    if (parts & matrix_part::pipeline) visit_pipeline(f, matrix);
    const bool root = matrix.orthogonalize.method == MatrixConfig::Orthogonalize::Method::preconditioner;
    if (root || (parts & matrix_part::preconditioner))
        f.object({"preconditioner", "of rules that multiply by a matrix made of gradients", optional_key},
                 [&](Fields& p) { visit_preconditioner(p, matrix.preconditioner); });
}

void visit_optim_param(Fields& f, OptimParamConfig& row) {
    f.choice({"optim", "update rule: adam, what optimizer.matrix says, or none, of a buffer"}, row.rule,
             std::array{"adam", "matrix", "none"});
    f.choice(
        {"comm",
         "sharded: each rank updates its share; replicated: each updates all, after an all_reduce; "
         "sharded_sparse: sharded, from the rows that were looked up (the table of model.input.bigram only)",
         optional_key},
        row.comm, std::array{"sharded", "replicated", "sharded_sparse"});
    f.number({"lr_mul", "multiplies the rule's lr", optional_key}, row.lr_mul, not_negative);
    f.number({"wd_mul", "multiplies the rule's weight_decay", optional_key}, row.wd_mul, not_negative);
    if (row.rule == OptimParamConfig::Rule::adam || f.describes()) {
        std::vector<double> betas;
        if (row.betas) betas.assign(row.betas->begin(), row.betas->end());
        f.numbers({"betas", "adam only: instead of optimizer.adam.betas", optional_key}, betas, below_one,
                  {2, 2});
        if (betas.size() == 2) row.betas = {betas[0], betas[1]};
    }
    if (row.rule != OptimParamConfig::Rule::matrix && !f.describes()) return;
    std::vector<int64_t> view(row.matrix_view.begin(), row.matrix_view.end());
    f.dims({"matrix_view", "matrix only: [matrices, rows, cols] of the bank", !f.describes()}, view, {3, 3});
    if (view.size() == 3) std::copy(view.begin(), view.end(), row.matrix_view.begin());
    f.numbers({"per_matrix_lr_mul", "matrix only: multiply lr_mul, for one matrix after the other in turn",
               optional_key},
              row.per_matrix_lr_mul, not_negative, {1, 16});
    f.integer(
        {"var_reduce_dim",
         "matrix only: a second moment of vectors averages over columns (-1) or rows (-2) here, whatever "
         "optimizer.matrix.second_moment",
         optional_key},
        row.var_reduce_dim, {-2, -1});
}

void visit_comm(Fields& f, CommConfig& comm) {
    f.choice({"launch", "when reductions start: after backward, or as soon as a bucket's gradients are done",
              optional_key},
             comm.launch, std::array{"at_step", "on_grad_ready"});
    f.texts(
        {"scatter_order",
         "buckets in the order of their reductions: \"embed\", \"attn_qkvo+mlp_fc[0:6]\"; without it, one a "
         "parameter",
         optional_key},
        comm.scatter_order);
    f.texts({"work_order", "the same buckets in the order of their updates; without it, scatter_order",
             optional_key},
            comm.work_order);
}

}  // namespace

void visit_optimizer(Fields& f, OptimizerConfig& optimizer) {
    f.object({"adam", "the element-wise rule"}, [&](Fields& adam) { visit_adam(adam, optimizer.adam); });
    f.object({"matrix", "the rule of matrices"},
             [&](Fields& matrix) { visit_matrix(matrix, optimizer.matrix); });
    f.named_objects({"params", "one row for each of model.params"}, optimizer.params,
                    &OptimParamConfig::param, visit_optim_param);
    f.object({"comm", "how ranks exchange gradients and parameters", optional_key},
             [&](Fields& comm) { visit_comm(comm, optimizer.comm); });
}

}  // namespace speedrun

#include <algorithm>

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
    f.choice(
        {"state_dtype", "of the moments; parameter: as it has (fewer than 2 dimensions: fp32)", optional_key},
        adam.state_dtype, std::array{"fp32", "bf16", "parameter"});
    f.choice({"eps_form", "raw: sqrt(v) + eps; corrected: sqrt(v / (1 - beta2^t)) + eps", optional_key},
             adam.eps_form, std::array{"raw", "corrected"});
    f.integer({"every_n_steps", "updates when step % n == n - 1; gradients in between add up", optional_key},
              adam.every_n_steps, {1, max_steps});
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
        f.boolean({"bias_correction", "adam only: m / (1 - beta1^t), v / (1 - beta2^t)", optional_key},
                  row.bias_correction);
    }
    if (row.rule != OptimParamConfig::Rule::matrix && !f.describes()) return;
    std::vector<int64_t> view(row.matrix_view.begin(), row.matrix_view.end());
    f.dims({"matrix_view", "matrix only: [matrices, rows, cols] of the bank", !f.describes()}, view, {3, 3});
    if (view.size() == 3) std::copy(view.begin(), view.end(), row.matrix_view.begin());
    f.numbers({"per_matrix_lr_mul", "matrix only: multiply lr_mul, for one matrix after the other in turn",
               optional_key},
              row.per_matrix_lr_mul, not_negative, {1, 16});
    f.texts(
        {"per_matrix_direction",
         "matrix only: off, on or gated, of optimizer.matrix.direction, for one matrix after the other in "
         "turn",
         optional_key},
        row.per_matrix_direction);
    f.numbers(
        {"per_matrix_norm_mul",
         "matrix only: multiply optimizer.matrix.row_norms.target, for one matrix after the other in turn",
         optional_key},
        row.per_matrix_norm_mul, above_zero, {1, 16});
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

void visit_lookahead(Fields& f, LookaheadConfig& lookahead) {
    f.number({"beta", "a step's forward runs ahead by this times the average step"}, lookahead.beta,
             not_negative);
    f.number({"ema", "decay of the average of steps", optional_key}, lookahead.ema, below_one);
    f.integer({"from", "first step that runs ahead"}, lookahead.from, steps_range);
    f.integer({"until", "first step that does not any more"}, lookahead.until, steps_range);
}

void visit_tail_ema(Fields& f, TailEmaConfig& tail) {
    f.number({"tau", "ema += (p - ema) / tau, steps"}, tail.tau, {1, max_steps});
    f.number({"weight", "validations read (1 - weight) p + weight ema"}, tail.weight, {0, 1});
    f.integer({"from", "first step whose result is averaged, counted from 1"}, tail.from, {1, max_steps});
    f.integer({"until", "first step whose result is not"}, tail.until, {1, max_steps});
    f.texts({"without", "parameters that have no average; absent: none", optional_key}, tail.without);
}

}  // namespace

void visit_optimizer(Fields& f, OptimizerConfig& optimizer) {
    f.object({"adam", "the element-wise rule"}, [&](Fields& adam) { visit_adam(adam, optimizer.adam); });
    f.object({"matrix", "the rule of matrices"},
             [&](Fields& matrix) { visit_matrix(matrix, optimizer.matrix); });
    f.maybe({"lookahead", "EMA-Nesterov around every rule; absent: none", optional_key}, optimizer.lookahead,
            visit_lookahead);
    f.maybe(
        {"tail_ema", "a running average of the last weights, for validations; absent: none", optional_key},
        optimizer.tail_ema, visit_tail_ema);
    f.named_objects({"params", "one row for each of model.params"}, optimizer.params,
                    &OptimParamConfig::param, visit_optim_param);
    f.object({"comm", "how ranks exchange gradients and parameters", optional_key},
             [&](Fields& comm) { visit_comm(comm, optimizer.comm); });
}

}  // namespace speedrun

#include <ATen/ATen.h>

#include <utility>

#include "model/layers.h"
#include "ops/gate.h"
#include "ops/gemm.h"
#include "ops/mix.h"
#include "ops/rotary.h"

namespace speedrun {

AttentionLayer::AttentionLayer(BuildContext& build, const AttentionConfig& attn, int64_t model_layer,
                               ValueId normed, std::vector<ValueId> value_sources)
    : config_(attn),
      bank_index_(bank_index(build.model.param(attn.param), model_layer)),
      d_(build.model.d_model),
      heads_(build.model.n_head),
      head_dim_(build.model.head_dim),
      eps_(build.model.norm_eps),
      first_coefficient_(build.coefficients.add(attn.v_terms)),
      normed_(normed),
      value_sources_(std::move(value_sources)) {
    if (attn.out_gate) gate_index_ = bank_index(build.model.param(attn.out_gate->param), model_layer);
    auto& values = build.values;
    const auto activation = [&](std::vector<int64_t> shape) {
        return values.declare(std::move(shape), build.activations);
    };
    qkv_ = activation({3 * d_});
    q_ = activation({heads_, head_dim_});
    k_ = activation({heads_, head_dim_});
    v_ = activation({d_});
    q_rstd_ = values.declare({heads_}, at::kFloat);
    k_rstd_ = values.declare({heads_}, at::kFloat);
    y_ = activation({heads_, head_dim_});
    lse_ = values.declare({heads_}, at::kFloat);  // used as [H, T]
    gate_ = values.declare({heads_}, at::kFloat);
    gated_ = activation({heads_, head_dim_});
    out_ = activation({d_});
    outputs_ = {qkv_, q_, k_, v_, q_rstd_, k_rstd_, y_, lse_, gate_, gated_, out_};
    trained_ = {{attn.param, bank_index_}};
    if (attn.out_gate) trained_.push_back({attn.out_gate->param, gate_index_});
    for (const ValueId id : {normed_, qkv_, q_, k_, v_, q_rstd_, k_rstd_, y_, lse_, gate_, gated_}) {
        values.read_in_forward(id, build.layer);
        values.keep_for_backward(id);
    }
    for (size_t j = 0; j < value_sources_.size(); ++j) {
        trainable_.push_back(build.coefficients.trainable(first_coefficient_ + static_cast<int64_t>(j)));
        if (value_sources_[j] < 0) continue;
        values.read_in_forward(value_sources_[j], build.layer);
        if (trainable_.back()) values.keep_for_backward(value_sources_[j]);
    }
}

// Matrices [first, first + count) of q, k, v, o as one [count * d, d] matrix.
at::Tensor AttentionLayer::weight(const at::Tensor& bank, int64_t first, int64_t count) const {
    return bank[bank_index_].narrow(0, first, count).view({count * d_, d_});
}

void AttentionLayer::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const int64_t tokens = ws.tokens();
    const at::Tensor& bank = pass.parameters[config_.param].used;
    const at::Tensor& qkv = ws.allocate(qkv_);
    ops::gemm(ws.value(normed_), weight(bank, 0, 3).t(), qkv);
    const auto head_view = [&](int64_t part) {
        return qkv.narrow(1, part * d_, d_).view({tokens, heads_, head_dim_});
    };
    enter(pass.probe, StepPart::norms);
    const at::Tensor& cos = pass.rotary.cos();
    const at::Tensor& sin = pass.rotary.sin();
    ops::qk_norm_rotary(head_view(0), cos, sin, eps_, ws.allocate(q_), ws.allocate(q_rstd_));
    ops::qk_norm_rotary(head_view(1), cos, sin, eps_, ws.allocate(k_), ws.allocate(k_rstd_));

    std::vector<at::Tensor> sources;
    for (const ValueId id : value_sources_)
        sources.push_back(id < 0 ? qkv.narrow(1, 2 * d_, d_) : ws.value(id));
    const auto terms = static_cast<int64_t>(sources.size());
    ops::mix(sources, pass.coefficients.values(first_coefficient_, terms), ws.allocate(v_));

    enter(pass.probe, StepPart::attention);
    const auto& mask = config_.window == Window::short_window ? pass.short_mask : pass.long_mask;
    ops::attention_forward(ws.value(q_), ws.value(k_), ws.value(v_).view({tokens, heads_, head_dim_}), mask,
                           pass.rotary.attn_scale(), ws.allocate(y_),
                           ws.allocate(lse_).view({heads_, tokens}));
    enter(pass.probe, StepPart::norms);
    if (config_.out_gate)
        ops::head_gate(ws.value(y_), ws.value(normed_),
                       pass.parameters[config_.out_gate->param].used[gate_index_], ws.allocate(gated_),
                       ws.allocate(gate_));
    enter(pass.probe, StepPart::attention);
    const at::Tensor& gated = ws.value(config_.out_gate ? gated_ : y_);
    ops::gemm(gated.view({tokens, d_}), weight(bank, 3, 1).t(), ws.allocate(out_));
}

void AttentionLayer::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const int64_t tokens = ws.tokens();
    const std::vector<int64_t> heads_shape{tokens, heads_, head_dim_};
    const auto activations = ws.value(qkv_).scalar_type();
    Parameter& parameter = pass.parameters[config_.param];
    const at::Tensor& dout = ws.grad(out_);
    const auto dnormed = ws.grad_target(normed_);

    // o projection and gate
    const at::Tensor dy = ws.scratch(heads_shape, activations);
    const at::Tensor& gated = ws.value(config_.out_gate ? gated_ : y_);
    ops::gemm(dout, weight(parameter.used, 3, 1), dy.view({tokens, d_}));
    ops::gemm(dout.t(), gated.view({tokens, d_}), weight(parameter.grad, 3, 1), /*accumulate=*/true);
    enter(pass.probe, StepPart::norms);
    at::Tensor dgate_input;  // of the first channels of normed
    if (config_.out_gate) {
        Parameter& gate = pass.parameters[config_.out_gate->param];
        dgate_input = ws.scratch({tokens, config_.out_gate->input_dims}, activations).zero_();
        ops::head_gate_backward(dy, ws.value(y_), ws.value(normed_), gate.used[gate_index_], ws.value(gate_),
                                dy, dgate_input, gate.grad[gate_index_]);
    }

    enter(pass.probe, StepPart::attention);
    const ops::AttentionGrads memory{ws.scratch(heads_shape, activations),
                                     ws.scratch(heads_shape, activations),
                                     ws.scratch(heads_shape, activations)};
    const auto& mask = config_.window == Window::short_window ? pass.short_mask : pass.long_mask;
    const auto [dq, dk, dv] = ops::attention_backward(
        dy, ws.value(q_), ws.value(k_), ws.value(v_).view(heads_shape), ws.value(y_),
        ws.value(lse_).view({heads_, tokens}), mask, pass.rotary.attn_scale(), memory);

    // rotary, QK norm, value mix, and the projections
    enter(pass.probe, StepPart::norms);
    const at::Tensor& qkv = ws.value(qkv_);
    const at::Tensor dqkv = ws.scratch({tokens, 3 * d_}, activations);
    const auto rotary_backward = [&](const at::Tensor& d_rotated, ValueId rstd, int64_t part) {
        const auto slice = [&](const at::Tensor& t) { return t.narrow(1, part * d_, d_).view(heads_shape); };
        ops::qk_norm_rotary_backward(d_rotated, slice(qkv), pass.rotary.cos(), pass.rotary.sin(),
                                     ws.value(rstd), slice(dqkv));
    };
    rotary_backward(dq, q_rstd_, 0);
    rotary_backward(dk, k_rstd_, 1);
    value_mix_backward(pass, qkv.narrow(1, 2 * d_, d_), dv.view({tokens, d_}), dqkv.narrow(1, 2 * d_, d_));
    enter(pass.probe, StepPart::attention);
    ops::gemm(dqkv.t(), ws.value(normed_), weight(parameter.grad, 0, 3), /*accumulate=*/true);
    ops::gemm(dqkv, weight(parameter.used, 0, 3), dnormed.tensor, dnormed.accumulate);
    if (dgate_input.defined()) {
        dnormed.tensor.narrow(1, 0, dgate_input.size(1)).add_(dgate_input);
        ws.release_scratch(dgate_input);
    }
    for (const at::Tensor& scratch : {dy, memory.dq, memory.dk, memory.dv, dqkv}) ws.release_scratch(scratch);
}

void AttentionLayer::value_mix_backward(Pass& pass, const at::Tensor& v, const at::Tensor& dv_mixed,
                                        const at::Tensor& dv) const {
    Workspace& ws = pass.workspace;
    const size_t n = value_sources_.size();
    std::vector<at::Tensor> sources(n), dsources(n);
    std::vector<uint8_t> accumulate(n, 0);
    for (size_t j = 0; j < n; ++j) {
        const ValueId id = value_sources_[j];
        sources[j] = id < 0 ? v : ws.value(id);
        if (id < 0) {
            dsources[j] = dv;
            continue;
        }
        const auto target = ws.grad_target(id);
        dsources[j] = target.tensor;
        accumulate[j] = target.accumulate;
    }
    const auto count = static_cast<int64_t>(n);
    ops::mix_backward(dv_mixed, sources, pass.coefficients.values(first_coefficient_, count), dsources,
                      accumulate, pass.coefficients.grads(first_coefficient_, count), trainable_);
}

}  // namespace speedrun

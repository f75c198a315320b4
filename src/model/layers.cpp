#include "model/layers.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "ops/embedding.h"
#include "ops/gemm.h"
#include "ops/mix.h"
#include "ops/norm.h"
#include "ops/relu2.h"
#include "ops/smear.h"
#include "util/error.h"

namespace speedrun {

ValueId ValueDeclarations::declare(std::vector<int64_t> shape, at::ScalarType dtype) {
    specs_.push_back(
        {.shape = std::move(shape), .dtype = dtype, .last_forward_use = -1, .kept_for_backward = false});
    return static_cast<ValueId>(specs_.size()) - 1;
}

void ValueDeclarations::read_in_forward(ValueId id, int layer) {
    specs_[static_cast<size_t>(id)].last_forward_use = layer;
}

void ValueDeclarations::keep_for_backward(ValueId id) {
    specs_[static_cast<size_t>(id)].kept_for_backward = true;
}

// ---- input
// -----------------------------------------------------------------------------------------------------

InputLayer::InputLayer(BuildContext& build)
    : table_(build.model.input.token), smear_(build.model.input.smear), eps_(build.model.norm_eps) {
    auto& values = build.values;
    const int64_t d = build.model.d_model;
    embedded_ = values.declare({d}, build.activations);
    gate_ = values.declare({}, at::kFloat);
    smeared_ = values.declare({d}, build.activations);
    rstd_ = values.declare({}, at::kFloat);
    x0_ = values.declare({d}, build.activations);
    outputs_ = {embedded_, gate_, smeared_, rstd_, x0_};
    trained_ = {{table_}};
    if (smear_) trained_.push_back({smear_->gate.param});
    if (smear_) lambda_ = build.coefficients.add(smear_->lambda);
    for (const ValueId id : {embedded_, gate_, smeared_, rstd_}) {
        values.read_in_forward(id, build.layer);
        values.keep_for_backward(id);
    }
}

void InputLayer::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor& e = ws.allocate(smear_ ? embedded_ : smeared_);
    ops::embedding(pass.parameters[table_].used, pass.inputs, e);
    if (smear_)
        ops::smear(e, pass.parameters[smear_->gate.param].used, pass.coefficients.values(lambda_, 1),
                   ws.allocate(smeared_), ws.allocate(gate_));
    ops::rms_norm(ws.value(smeared_), eps_, ws.allocate(x0_), ws.allocate(rstd_));
}

void InputLayer::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const auto target = ws.grad_target(smeared_);
    ops::rms_norm_backward(ws.grad(x0_), ws.value(smeared_), ws.value(rstd_), target.tensor,
                           target.accumulate);
    Parameter& table = pass.parameters[table_];
    if (!smear_) {
        ops::embedding_backward(target.tensor, pass.inputs, table.grad);
        return;
    }
    Parameter& gate = pass.parameters[smear_->gate.param];
    const auto embedded = ws.grad_target(embedded_);
    ops::smear_backward(target.tensor, ws.value(embedded_), gate.used, pass.coefficients.values(lambda_, 1),
                        ws.value(gate_), embedded.tensor, gate.grad, pass.coefficients.grads(lambda_, 1));
    ops::embedding_backward(embedded.tensor, pass.inputs, table.grad);
}

// ---- value embeddings
// ------------------------------------------------------------------------------------------

ValueEmbedLayer::ValueEmbedLayer(BuildContext& build, int64_t table)
    : param_(build.model.input.value_embeds), table_(table) {
    out_ = build.values.declare({build.model.d_model}, build.activations);
    outputs_ = {out_};
    trained_ = {{param_, table_}};
}

void ValueEmbedLayer::forward(Pass& pass) const {
    ops::embedding(pass.parameters[param_].used[table_], pass.inputs, pass.workspace.allocate(out_));
}

void ValueEmbedLayer::backward(Pass& pass) const {
    ops::embedding_backward(pass.workspace.grad(out_), pass.inputs, pass.parameters[param_].grad[table_]);
}

// ---- mixes
// -----------------------------------------------------------------------------------------------------

MixLayer::MixLayer(BuildContext& build, const std::vector<MixTerm>& terms, std::vector<ValueId> sources,
                   bool with_norm)
    : sources_(std::move(sources)),
      first_coefficient_(build.coefficients.add(terms)),
      with_norm_(with_norm),
      eps_(build.model.norm_eps) {
    auto& values = build.values;
    for (size_t j = 0; j < terms.size(); ++j) {
        const int64_t index = first_coefficient_ + static_cast<int64_t>(j);
        trainable_.push_back(build.coefficients.trainable(index));
        is_one_.push_back(build.coefficients.is_one(index));
        values.read_in_forward(sources_[j], build.layer);
        if (trainable_.back()) values.keep_for_backward(sources_[j]);
    }
    y_ = values.declare({build.model.d_model}, build.activations);
    outputs_ = {y_};
    if (!with_norm_) return;
    normed_ = values.declare({build.model.d_model}, build.activations);
    rstd_ = values.declare({}, at::kFloat);
    outputs_.insert(outputs_.end(), {normed_, rstd_});
    values.read_in_forward(rstd_, build.layer);
    values.read_in_forward(y_, build.layer);
    values.keep_for_backward(rstd_);
    values.keep_for_backward(y_);
}

void MixLayer::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    std::vector<at::Tensor> sources;
    for (const ValueId id : sources_) sources.push_back(ws.value(id));
    const at::Tensor c = pass.coefficients.values(first_coefficient_, static_cast<int64_t>(sources.size()));
    if (with_norm_)
        ops::mix_norm(sources, c, eps_, ws.allocate(y_), ws.allocate(normed_), ws.allocate(rstd_));
    else
        ops::mix(sources, c, ws.allocate(y_));
}

void MixLayer::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    if (with_norm_) {
        const auto dy = ws.grad_target(y_);
        ops::rms_norm_backward(ws.grad(normed_), ws.value(y_), ws.value(rstd_), dy.tensor, dy.accumulate);
        ws.release(normed_);
    }
    const size_t n = sources_.size();
    std::vector<at::Tensor> sources(n), dsources(n);
    std::vector<uint8_t> accumulate(n, 0);
    bool anything = false;
    for (size_t j = 0; j < n; ++j) {
        if (trainable_[j]) sources[j] = ws.value(sources_[j]);
        if (is_one_[j] && !ws.has_grad(sources_[j])) {
            ws.share_grad(y_, sources_[j]);
            continue;
        }
        anything = true;
        const auto twin =
            std::find(sources_.begin(), sources_.begin() + static_cast<ptrdiff_t>(j), sources_[j]);
        if (const auto k = static_cast<size_t>(twin - sources_.begin()); k < j && dsources[k].defined()) {
            dsources[j] = dsources[k];  // a source used twice, as x0 is where it is also x
            accumulate[j] = 1;
            continue;
        }
        auto target = ws.grad_target(sources_[j]);
        dsources[j] = std::move(target.tensor);
        accumulate[j] = target.accumulate;
    }
    if (!anything) return;
    const auto count = static_cast<int64_t>(n);
    ops::mix_backward(ws.grad(y_), sources, pass.coefficients.values(first_coefficient_, count), dsources,
                      accumulate, pass.coefficients.grads(first_coefficient_, count), trainable_);
}

// ---- MLP
// -------------------------------------------------------------------------------------------------------

MlpLayer::MlpLayer(BuildContext& build, const MlpConfig& mlp, int64_t model_layer, ValueId normed)
    : config_(mlp),
      fc_index_(bank_index(build.model.param(mlp.fc), model_layer)),
      proj_index_(bank_index(build.model.param(mlp.proj), model_layer)),
      normed_(normed) {
    auto& values = build.values;
    const int64_t hidden = build.model.param(mlp.fc).shape[2];
    pre_ = values.declare({hidden}, build.activations);
    post_ = values.declare({hidden}, build.activations);
    out_ = values.declare({build.model.d_model}, build.activations);
    outputs_ = {pre_, post_, out_};
    trained_ = {{mlp.fc, fc_index_}, {mlp.proj, proj_index_}};
    for (const ValueId id : {normed_, pre_, post_}) {
        values.read_in_forward(id, build.layer);
        values.keep_for_backward(id);
    }
}

void MlpLayer::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const at::Tensor fc = pass.parameters[config_.fc].used[fc_index_];
    const at::Tensor proj = pass.parameters[config_.proj].used[proj_index_];
    ops::gemm(ws.value(normed_), fc, ws.allocate(pre_));
    ops::relu2(ws.value(pre_), ws.allocate(post_));
    ops::gemm(ws.value(post_), proj.t(), ws.allocate(out_));
}

void MlpLayer::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    const Parameter& fc = pass.parameters[config_.fc];
    const Parameter& proj = pass.parameters[config_.proj];
    const at::Tensor& dout = ws.grad(out_);
    ops::gemm(dout.t(), ws.value(post_), proj.grad[proj_index_], /*accumulate=*/true);
    const auto dpre = ws.grad_target(pre_);
    ops::gemm(dout, proj.used[proj_index_], dpre.tensor);
    ops::relu2_backward(dpre.tensor, ws.value(pre_), dpre.tensor);
    ops::gemm(ws.value(normed_).t(), dpre.tensor, fc.grad[fc_index_], /*accumulate=*/true);
    const auto dnormed = ws.grad_target(normed_);
    ops::gemm(dpre.tensor, fc.used[fc_index_].t(), dnormed.tensor, dnormed.accumulate);
}

// ---- head
// ------------------------------------------------------------------------------------------------------

HeadLayer::HeadLayer(BuildContext& build, ValueId normed)
    : param_(build.model.output.head),
      softcap_{build.model.output.softcap_a, build.model.output.softcap_b, build.model.output.softcap_c},
      normed_(normed) {
    if (build.head.format == NumericsConfig::Head::Format::fp8)
        fp8_ = {build.head.x_scale, build.head.w_scale, build.head.grad_scale};
    build.values.read_in_forward(normed_, build.layer);
    trained_ = {{param_}};
}

void HeadLayer::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    Parameter& head = pass.parameters[param_];
    if (!ws.training()) {
        ops::head_loss(ws.value(normed_), head.used, pass.targets, softcap_, pass.loss_per_token);
        return;
    }
    const auto dnormed = ws.grad_target(normed_);
    check(!dnormed.accumulate, "the head is the only reader of its input");
    ops::head_loss_backward(ws.value(normed_), head.used, pass.targets, softcap_, pass.grad_scale,
                            pass.loss_per_token, dnormed.tensor, head.grad, fp8_);
}

}  // namespace speedrun

#include "model/nodes/gate.h"

#include "model/pass.h"

namespace speedrun {

GateNode::GateNode(GraphBuilder& build, const std::string& name, const WeightRef& weight,
                   std::vector<Input> inputs, ops::Activation activation, const std::string& path)
    : Node(name, "gate", StepPart::norms),
      weight_(weight),
      from_(std::move(inputs)),
      activation_(activation),
      outputs_count_(weight.shape.size() < 2 ? 1 : weight.shape[weight.shape.size() - 2]) {
    for (const Input& input : from_) {
        channels_ += input.channels;
        build.read(*this, input.value, GraphBuilder::Read::forward_and_backward);
    }
    build.use(*this, weight, WeightUse::Kind::multiplied,
              weight.shape.size() == 1 ? std::vector{channels_} : std::vector{outputs_count_, channels_},
              path);
    values_ = build.declare(*this, name, outputs_count_, Value::Element::fp32);
    build.sum_gradients(values_);
    build.read(*this, values_, GraphBuilder::Read::forward_and_backward);
}

NodeCost GateNode::cost(const PassShape& shape) const {
    const auto rows = static_cast<double>(shape.tokens);
    const double inputs = rows * static_cast<double>(channels_ * shape.item),
                 values = 4 * rows * static_cast<double>(outputs_count_);
    return {.forward = {.read = inputs, .written = values},
            .backward = {.read = 2 * inputs + 2 * values, .written = inputs}};
}

std::string GateNode::shape() const {
    return std::to_string(channels_) + "x" + std::to_string(outputs_count_);
}

at::Tensor GateNode::weight_view(const at::Tensor& weight) const {
    return weight.view({outputs_count_, channels_});
}

void GateNode::forward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    std::vector<at::Tensor> inputs;
    for (const Input& input : from_) inputs.push_back(ws.value(input.value).narrow(1, 0, input.channels));
    ops::gate(inputs, weight_view(pass.parameters.used(weight_)), activation_, ws.allocate(values_));
}

void GateNode::backward(Pass& pass) const {
    Workspace& ws = pass.workspace;
    std::vector<at::Tensor> inputs, dinputs;
    for (const Input& input : from_) {
        inputs.push_back(ws.value(input.value).narrow(1, 0, input.channels));
        dinputs.push_back(ws.grad_to_add_to(input.value).narrow(1, 0, input.channels));
    }
    ops::gate_backward(ws.grad(values_), ws.value(values_), inputs,
                       weight_view(pass.parameters.used(weight_)), activation_, dinputs,
                       weight_view(pass.parameters.grad(weight_)));
}

}  // namespace speedrun

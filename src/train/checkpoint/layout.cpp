#include "train/checkpoint/layout.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "util/error.h"

namespace speedrun {
namespace {

constexpr size_t kWeights = 0, kOptimizer = 1;

TensorSpec spec(const std::string& name, at::ScalarType dtype, std::vector<int64_t> shape) {
    return {name, safetensors_dtype(dtype), std::move(shape)};
}

SafetensorsLayout weights_layout(const ParameterTable& parameters) {
    std::vector<TensorSpec> tensors;
    for (const Parameter& parameter : parameters.all())
        for (const StateDictEntry& entry : state_dict_entries(parameter.config))
            tensors.push_back(spec(entry.name, parameter.value.scalar_type(), entry.shape));
    return SafetensorsLayout(std::move(tensors), {{"format", "pt"}});
}

SafetensorsLayout optimizer_layout(const Optimizer& optimizer) {
    std::vector<TensorSpec> tensors;
    for (const GlobalTensor& tensor : optimizer.global_state())
        tensors.push_back(spec(tensor.name, tensor.dtype, tensor.shape));
    return SafetensorsLayout(std::move(tensors));
}

// Elements [begin, begin + count) of a matrix whose transpose, of `shape`, is in the file at `offset`: a
// piece of each of that one's rows.
void add_transposed(const at::Tensor& part, int64_t begin, const std::vector<int64_t>& shape, uint64_t offset,
                    std::vector<CheckpointExtent>& extents) {
    const int64_t rows = shape[1], cols = shape[0], end = begin + part.numel();
    for (int64_t col = 0; col < cols; ++col) {
        const int64_t first = (begin + cols - 1 - col) / cols, last = (end + cols - 1 - col) / cols;
        if (first == last) continue;
        extents.push_back({kWeights,
                           offset + static_cast<uint64_t>((col * rows + first) * part.element_size()),
                           part.slice(0, first * cols + col - begin, part.numel(), cols)});
    }
}

// A part of a parameter lies in one or more entries of the state_dict, which follow each other in the bank.
void add_weights(const Parameter& parameter, const NamedTensor& part, const SafetensorsLayout& layout,
                 std::vector<CheckpointExtent>& extents) {
    const auto entries = state_dict_entries(parameter.config);
    const int64_t size = parameter.value.numel() / static_cast<int64_t>(entries.size());
    const int64_t end = part.begin + part.tensor.numel(), item = part.tensor.element_size();
    for (int64_t at = part.begin; at < end;) {
        const int64_t index = at / size, next = std::min(end, (index + 1) * size), begin = at - index * size;
        const StateDictEntry& entry = entries[static_cast<size_t>(index)];
        const at::Tensor piece = part.tensor.view(-1).narrow(0, at - part.begin, next - at);
        const uint64_t offset = layout.offset(entry.name);
        if (entry.transposed)
            add_transposed(piece, begin, entry.shape, offset, extents);
        else
            extents.push_back({kWeights, offset + static_cast<uint64_t>(begin * item), piece});
        at = next;
    }
}

void add_gradients(const Config& config, const ParameterTable& parameters, int64_t rank,
                   CheckpointLayout& checkpoint) {
    std::vector<TensorSpec> tensors;
    for (const OptimParamConfig& row : config.optimizer.params)
        if (row.rule == OptimParamConfig::Rule::adam) {
            const at::Tensor& grad = parameters[row.param].grad;
            tensors.push_back(spec(row.param, grad.scalar_type(), grad.sizes().vec()));
        }
    checkpoint.files.push_back({gradients_file(rank), SafetensorsLayout(std::move(tensors))});
    const SafetensorsLayout& layout = checkpoint.files.back().layout;
    for (const TensorSpec& tensor : layout.tensors())
        checkpoint.extents.push_back(
            {checkpoint.files.size() - 1, layout.offset(tensor.name), parameters[tensor.name].grad.view(-1)});
}

// Rank 0 writes the scales that all have.
void add_fp8(const Fp8Weights& fp8, int64_t rank, int64_t ranks, CheckpointLayout& checkpoint) {
    const at::Tensor &weights = fp8.weight_scales(), &activations = fp8.activation_scales();
    const int64_t count = weights.numel();
    std::vector<TensorSpec> tensors{spec(fp8_weight_scales, weights.scalar_type(), {count}),
                                    spec(fp8_activation_scales, activations.scalar_type(), {ranks, count})};
    checkpoint.files.push_back({fp8_file, SafetensorsLayout(std::move(tensors))});
    const SafetensorsLayout& layout = checkpoint.files.back().layout;
    const size_t file = checkpoint.files.size() - 1;
    if (rank == 0) checkpoint.extents.push_back({file, layout.offset(fp8_weight_scales), weights});
    checkpoint.extents.push_back(
        {file, layout.offset(fp8_activation_scales) + static_cast<uint64_t>(rank) * activations.nbytes(),
         activations});
}

}  // namespace

std::string safetensors_dtype(at::ScalarType dtype) {
    switch (dtype) {
        case at::kFloat:
            return "F32";
        case at::kBFloat16:
            return "BF16";
        case at::kLong:
            return "I64";
        default:
            throw InternalError(std::string("no checkpoint of a ") + at::toString(dtype));
    }
}

std::string gradients_file(int64_t rank) {
    return "gradients_" + std::to_string(rank) + ".safetensors";
}

int64_t CheckpointLayout::extent_bytes() const {
    int64_t bytes = 0;
    for (const CheckpointExtent& extent : extents) bytes += static_cast<int64_t>(extent.tensor.nbytes());
    return bytes;
}

CheckpointLayout checkpoint_layout(const Config& config, const ParameterTable& parameters,
                                   const Optimizer& optimizer, int64_t rank, int64_t ranks,
                                   bool pending_gradients) {
    CheckpointLayout checkpoint;
    checkpoint.files.push_back({"weights.safetensors", weights_layout(parameters)});
    checkpoint.files.push_back({"optimizer.safetensors", optimizer_layout(optimizer)});
    for (const NamedTensor& part : optimizer.owned_values())
        if (!part.shared || rank == 0)
            add_weights(parameters[part.name], part, checkpoint.files[kWeights].layout, checkpoint.extents);
    for (const NamedTensor& part : optimizer.state()) {
        if (part.shared && rank != 0) continue;
        const uint64_t offset = checkpoint.files[kOptimizer].layout.offset(part.name) +
                                static_cast<uint64_t>(part.begin * part.tensor.element_size());
        checkpoint.extents.push_back({kOptimizer, offset, part.tensor.view(-1)});
    }
    if (!parameters.fp8().empty()) add_fp8(parameters.fp8(), rank, ranks, checkpoint);
    if (pending_gradients) add_gradients(config, parameters, rank, checkpoint);
    return checkpoint;
}

}  // namespace speedrun

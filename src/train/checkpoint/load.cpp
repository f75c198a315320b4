#include "train/checkpoint/load.h"

#include <ATen/ATen.h>

#include <cstring>

#include "model/weights.h"
#include "train/checkpoint/layout.h"
#include "util/error.h"

namespace speedrun {
namespace {

// The tensor of that name, as this run would have written it.
const SafeTensor& expect(const SafetensorsFile& file, const std::string& name, at::ScalarType dtype,
                         const std::vector<int64_t>& shape) {
    const SafeTensor* found = file.find(name);
    if (!found || found->dtype != safetensors_dtype(dtype) || found->shape != shape)
        throw UserError(file.path().string() + ": tensor '" + name + "' is " +
                        (found ? "of another dtype or shape than" : "missing, though it belongs to") +
                        " this run's");
    return *found;
}

at::Tensor copy_of(const SafeTensor& found, at::ScalarType dtype) {
    const at::Tensor copy = at::empty(found.shape, dtype);
    if (!found.data.empty()) std::memcpy(copy.data_ptr(), found.data.data(), found.data.size());
    return copy;
}

void load_optimizer(const std::filesystem::path& path, Optimizer& optimizer) {
    const SafetensorsFile file(path);
    std::map<std::string, const SafeTensor*> tensors;
    for (const GlobalTensor& global : optimizer.global_state())
        tensors[global.name] = &expect(file, global.name, global.dtype, global.shape);
    for (const NamedTensor& part : optimizer.state()) {
        const auto offset = static_cast<size_t>(part.begin * part.tensor.element_size());
        const auto bytes = tensors.at(part.name)->data.subspan(offset, part.tensor.nbytes());
        const at::Tensor copy = at::empty(part.tensor.sizes(), part.tensor.scalar_type());
        std::memcpy(copy.data_ptr(), bytes.data(), bytes.size());
        part.tensor.copy_(copy);
    }
    file.check_unchanged();
}

void load_gradients(const Checkpoint& checkpoint, const Config& config, ParameterTable& parameters,
                    const Communicator& communicator) {
    const int64_t wrote = checkpoint.manifest.world_size, rank = communicator.rank();
    const bool same = wrote == communicator.world_size();
    const int64_t first = same ? rank : 0, last = same ? rank + 1 : rank == 0 ? wrote : 0;
    for (int64_t from = first; from < last; ++from) {
        const SafetensorsFile file(checkpoint.folder / gradients_file(from));
        for (const OptimParamConfig& row : config.optimizer.params) {
            if (row.rule != OptimParamConfig::Rule::adam) continue;
            const at::Tensor& grad = parameters[row.param].grad;
            const at::Tensor part =
                copy_of(expect(file, row.param, grad.scalar_type(), grad.sizes().vec()), grad.scalar_type());
            if (from == first)
                grad.copy_(part);
            else
                grad.add_(part.to(grad.device()));
        }
        file.check_unchanged();
    }
}

// The scales, then the weights in 8 bits by them.
void load_fp8(const Checkpoint& checkpoint, ParameterTable& parameters, const Communicator& communicator) {
    const Fp8Weights& fp8 = parameters.fp8();
    if (fp8.empty() || !checkpoint.manifest.files.contains(fp8_file)) return;
    const int64_t wrote = checkpoint.manifest.world_size, count = fp8.weight_scales().numel();
    const SafetensorsFile file(checkpoint.folder / fp8_file);
    const at::Tensor activations =
        copy_of(expect(file, fp8_activation_scales, at::kFloat, {wrote, count}), at::kFloat);
    fp8.weight_scales().copy_(copy_of(expect(file, fp8_weight_scales, at::kFloat, {count}), at::kFloat));
    fp8.activation_scales().copy_(wrote == communicator.world_size() ? activations[communicator.rank()]
                                                                     : activations.amax(0));
    file.check_unchanged();
    parameters.restore_fp8();
}

}  // namespace

void load_checkpoint(const Checkpoint& checkpoint, const Config& config, ParameterTable& parameters,
                     Optimizer& optimizer, const Communicator& communicator) {
    load_weights(parameters, checkpoint.folder / "weights.safetensors");
    load_fp8(checkpoint, parameters, communicator);
    load_optimizer(checkpoint.folder / "optimizer.safetensors", optimizer);
    parameters.zero_grad();
    if (checkpoint.manifest.pending_gradients) load_gradients(checkpoint, config, parameters, communicator);
}

}  // namespace speedrun

#pragma once
// What a checkpoint is made of: which files, which tensors in them, and which bytes of those one rank writes.
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/parameters.h"
#include "optim/optimizer.h"
#include "util/safetensors.h"

namespace speedrun {

struct CheckpointFile {
    std::string name;
    SafetensorsLayout layout;
};

// Bytes of a file that this rank owns: the elements of `tensor` in order, which shares memory with the run's
// state and may be strided.
struct CheckpointExtent {
    size_t file = 0;  // index among the layout's files
    uint64_t offset = 0;
    at::Tensor tensor;
};

// weights.safetensors has the reference's state_dict, as save_weights writes it; optimizer.safetensors has
// Optimizer::global_state(). Both are the same whatever the number of ranks. gradients_RANK.safetensors is
// there where gradients are waiting for Adam, and has this rank's part of their sum. fp8.safetensors is there
// where the config has weights in 8-bit floats: "weight_scales" fp32 [weights] and "activation_scales"
// [ranks, weights], since each rank has its own of those.
struct CheckpointLayout {
    std::vector<CheckpointFile> files;
    std::vector<CheckpointExtent> extents;

    int64_t extent_bytes() const;
};

std::string gradients_file(int64_t rank);  // "gradients_3.safetensors"

// The names of the file of the scales of 8-bit floats, and of its tensors.
inline constexpr const char *fp8_file = "fp8.safetensors", *fp8_weight_scales = "weight_scales",
                            *fp8_activation_scales = "activation_scales";

// Of `rank`, one of `ranks`.
CheckpointLayout checkpoint_layout(const Config& config, const ParameterTable& parameters,
                                   const Optimizer& optimizer, int64_t rank, int64_t ranks,
                                   bool pending_gradients);

// "F32", "BF16", "I64", ...: a dtype as safetensors spells it.
std::string safetensors_dtype(at::ScalarType dtype);

}  // namespace speedrun

// One step's gradient of the golden model on as many ranks as mpirun starts: prints the head gradient's norm,
// and its distance from the gradient that fp32 sums of fp32 micro-batches give.
//   train_averaging FOLDER params_dtype rows accumulation
// FOLDER holds train_1.bin and init.safetensors.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdio>
#include <string>

#include "comm/make_communicator.h"
#include "data/loader.h"
#include "data/step_shapes.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "optim/optimizer.h"
#include "train/trainer.h"

using namespace speedrun;

namespace {

Config config_of(const std::string& folder, const std::string& params, const std::string& rows,
                 const std::string& accumulation) {
    const std::vector<std::string> overrides{"data.train=" + folder + "/train_1.bin",
                                             "numerics.params=" + params, "data.rows=" + rows,
                                             "objective.accumulation=" + accumulation};
    return load_config(SPEEDRUN_SOURCE_DIR "/tests/golden/golden_tiny.json", overrides);
}

// The rows of the first step as the golden run has them, eight of 256 tokens; or all of them as one.
std::vector<Batch> first_step(const Config& config, const RowShare& share) {
    const DataLayout layout = data_layout(config.data);
    const StepShape golden{.rows = 8, .row = {.tokens = 256, .cu_seqlens_entries = 128}, .max_seq_len = 128};
    const auto shards = find_shards(config.data.train);
    if (config.data.rows == golden.rows) return TrainLoader(shards, layout, share).next_step(golden);
    Batch joined;
    joined.cu_seqlens = {0};
    for (const Batch& row : TrainLoader(shards, layout).next_step(golden)) {
        const auto offset = static_cast<int32_t>(joined.inputs.size());
        joined.inputs.insert(joined.inputs.end(), row.inputs.begin(), row.inputs.end());
        joined.targets.insert(joined.targets.end(), row.targets.begin(), row.targets.end());
        for (size_t i = 1; i < row.cu_seqlens.size(); ++i)
            if (row.cu_seqlens[i] > row.cu_seqlens[i - 1])
                joined.cu_seqlens.push_back(offset + row.cu_seqlens[i]);
    }
    return {joined};
}

// The gradient of the head after accumulation and averaging, as the optimizer would use it.
at::Tensor head_gradient(const Config& config, const std::string& folder, Communicator& communicator) {
    GPT model(config, 2048, at::kCPU);
    load_weights(model.parameters(), folder + "/init.safetensors");
    // Smear looks at the token before, over the border of two rows where they are one micro-batch.
    model.parameters()["scalars"].value[60] = 0;
    const auto batches = first_step(config, {communicator.rank(), communicator.world_size()});
    accumulate_gradients(model, config, batches, settings_at(config, 0));
    const at::Tensor grad = model.parameters()["lm_head"].grad;
    communicator.all_reduce(grad, ReduceOp::sum, "lm_head")->wait();
    return grad.to(at::kDouble) * gradient_scale(config.objective, communicator.world_size());
}

}  // namespace

int main(int, char** argv) {
    const std::string folder = argv[1];
    const auto communicator = make_communicator(read_launch_environment(), at::kCPU);
    at::set_num_threads(1);
    const at::Tensor grad =
        head_gradient(config_of(folder, argv[2], argv[3], argv[4]), folder, *communicator);
    const auto alone = make_self_communicator();
    const at::Tensor exact = head_gradient(config_of(folder, "fp32", "8", "sum_then_divide"), folder, *alone);
    if (communicator->rank() == 0)
        std::printf("norm %.9g error %.9g\n", grad.norm().item<double>(),
                    ((grad - exact).norm() / exact.norm()).item<double>());
}

#include "app/session.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <sched.h>

#include "config/saved_config.h"
#include "model/initialize.h"
#include "model/weights.h"
#include "optim/schedule.h"
#include "train/trainer.h"
#include "util/error.h"

namespace speedrun {
namespace {

int64_t available_cores() {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    return sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
}

}  // namespace

at::Device choose_device(const RuntimeConfig& runtime) {
    using Device = RuntimeConfig::Device;
    const bool cuda = runtime.device != Device::cpu && at::hasCUDA() && at::getNumGPUs() > 0;
    if (runtime.device == Device::cuda && !cuda)
        throw UserError(
            "runtime.device is \"cuda\", but this executable sees no GPU; allowed here: \"cpu\" or \"auto\"");
    return cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
}

int64_t set_threads(const RuntimeConfig& runtime, const LaunchEnvironment& launch) {
    const int64_t share = std::max<int64_t>(1, available_cores() / launch.local_size);
    const int64_t threads = runtime.threads > 0 ? runtime.threads : share;
    at::set_num_threads(static_cast<int>(threads));
    return threads;
}

at::ScalarType activation_type(const Config& config) {
    return config.numerics.activations == Dtype::bf16 ? at::kBFloat16 : at::kFloat;
}

std::unique_ptr<GPT> make_model(const Config& config, const std::optional<std::filesystem::path>& weights,
                                int64_t max_tokens) {
    auto model = std::make_unique<GPT>(config, max_tokens, choose_device(config.runtime));
    if (weights)
        load_weights(model->parameters(), *weights);
    else
        initialize(model->parameters(), config.model, config.runtime.seed);
    return model;
}

AttentionSettings final_attention(const Config& config, GPT& model) {
    const int64_t last = config.schedule.total_steps();
    for (const Stage& stage : config.schedule.stages)
        if (stage.start <= last) model.rotary().stretch(stage.window_long);
    return attention_settings(settings_at(config, last));
}

SavedModel find_saved_model(const std::string& run_dir, const std::string& config, const std::string& weights,
                            const std::vector<std::string>& overrides) {
    if (run_dir.empty() && (config.empty() || weights.empty()))
        throw UserError("which weights? Give --run-dir DIR, or --config FILE and --weights FILE");
    const std::filesystem::path dir(run_dir);
    return {
        config.empty() ? load_saved_config(dir / "config.json", overrides) : load_config(config, overrides),
        weights.empty() ? dir / "weights.safetensors" : std::filesystem::path(weights)};
}

}  // namespace speedrun

#include "app/session.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdio>

#include "config/schedule.h"
#include "model/initialize.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "ops/cuda/gpu.h"
#include "ops/dtype.h"
#include "train/trainer.h"
#include "util/control_groups.h"
#include "util/diagnostics.h"
#include "util/error.h"
#include "util/process_setup.h"

namespace speedrun {
namespace {

// Whether runtime.device "auto" may look for GPUs. The driver alone is no reason to: a build without CUDA's
// compiler runs on that machine as on any other.
bool may_have_gpus(const LaunchEnvironment& launch) {
    if (!ops::cuda::have_driver()) return false;
    if (ops::cuda::have_backend()) return true;
    if (launch.rank == 0)
        inform(
            "this machine has NVIDIA's driver, but this build has no libspeedrun_cuda.so: running on "
            "the CPU");
    return false;
}

}  // namespace

at::Device choose_device(const RuntimeConfig& runtime, const LaunchEnvironment& launch) {
    using Device = RuntimeConfig::Device;
    if (runtime.device == Device::cpu || (runtime.device == Device::automatic && !may_have_gpus(launch)))
        return at::kCPU;
    ops::cuda::load_backend();
    const int64_t gpus = at::hasCUDA() ? at::getNumGPUs() : 0;
    if (gpus == 0 && runtime.device == Device::automatic) return at::kCPU;
    if (gpus == 0)
        throw UserError("runtime.device: rank " + std::to_string(launch.rank) +
                        " finds 0 GPUs on its host; allowed here: \"cpu\" or \"auto\"");
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(gpu_of_rank(launch, gpus)));
    const c10::impl::VirtualGuardImpl gpu(at::kCUDA);
    gpu.setDevice(device);
    gpu.exchangeStream(gpu.getStreamFromGlobalPool(device));  // work of the default one cannot be recorded
    return device;
}

void require_threads(const RuntimeConfig& runtime, int64_t cores) {
    constexpr int64_t most_per_core = 8;
    if (runtime.threads <= most_per_core * cores) return;
    throw UserError("runtime.threads is " + std::to_string(runtime.threads) + "; allowed here: 0 to " +
                    std::to_string(most_per_core * cores) + ", " + std::to_string(most_per_core) +
                    " for each core that this process may use");
}

void use_threads(int64_t threads) {
    require_room_for_threads(2 * threads);  // LibTorch has two pools of them, one of which is OpenMP's
    at::set_num_threads(static_cast<int>(threads));
}

int64_t set_threads(const RuntimeConfig& runtime, const LaunchEnvironment& launch) {
    require_threads(runtime, available_cores());
    const int64_t share = std::max<int64_t>(1, available_cores() / launch.local_size);
    const int64_t threads = runtime.threads > 0 ? runtime.threads : share;
    use_threads(threads);
    return threads;
}

at::ScalarType activation_type(const Config& config) {
    return scalar_type(config.numerics.activations);
}

std::unique_ptr<GPT> make_model(const Config& config, const std::optional<std::filesystem::path>& weights,
                                int64_t max_tokens, at::Device device) {
    auto model = std::make_unique<GPT>(config, max_tokens, device);
    if (weights)
        load_weights(model->parameters(), *weights);
    else
        initialize(model->parameters(), config.model, config.runtime.seed);
    return model;
}

StepSettings final_settings(const Config& config, GPT& model) {
    const int64_t last = config.schedule.total_steps();
    for (const Stage& stage : config.schedule.stages)
        if (stage.start <= last) model.rotary().stretch(stage.window_long);
    return settings_at(config, last);
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

Tokenizer load_tokenizer(const std::filesystem::path& folder, const Config& config) {
    Tokenizer tokenizer(folder);
    if (tokenizer.vocab_size() != config.data.vocab_size)
        throw UserError(folder.string() + ": the tokenizer has " + std::to_string(tokenizer.vocab_size()) +
                        " tokens, the model was trained on " + std::to_string(config.data.vocab_size));
    return tokenizer;
}

}  // namespace speedrun

#pragma once
// What train, eval, generate and bench begin with.
#include <ATen/core/ScalarType.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "comm/launch.h"
#include "config/config.h"
#include "data/tokenizer.h"
#include "model/gpt.h"

namespace speedrun {

// The device runtime.device asks for; of several GPUs, the one of this rank's number on its host, which
// becomes the thread's current device. UserError where it is not there. Before anything else asks ATen about
// GPUs.
at::Device choose_device(const RuntimeConfig& runtime, const LaunchEnvironment& launch = {});

// UserError where runtime.threads is a large multiple of the cores: those would wait for one another, and
// hear no signal meanwhile.
void require_threads(const RuntimeConfig& runtime, int64_t cores);

// Makes LibTorch compute with so many threads. UserError where the system does not let it have them.
void use_threads(int64_t threads);

// Sets the number of threads to runtime.threads, or to this rank's share of the cores it may use. Returns it.
// UserError as above.
int64_t set_threads(const RuntimeConfig& runtime, const LaunchEnvironment& launch = {});

at::ScalarType activation_type(const Config& config);

// A model with its weights: from `weights` where given, else the initial ones of runtime.seed.
std::unique_ptr<GPT> make_model(const Config& config, const std::optional<std::filesystem::path>& weights,
                                int64_t max_tokens, at::Device device);

// Settings of the last validation, in which a trained model is used. Takes `model`, as make_model left it,
// through every window of the schedule on the way: YaRN's steps are cumulative, so the path matters.
StepSettings final_settings(const Config& config, GPT& model);

// Config and weights of `--run-dir DIR`, or of `--config FILE --weights FILE`.
struct SavedModel {
    Config config;
    std::filesystem::path weights;
};
SavedModel find_saved_model(const std::string& run_dir, const std::string& config, const std::string& weights,
                            const std::vector<std::string>& overrides);

// The tokenizer of a folder. UserError where it is not the one that the config's data are made with.
Tokenizer load_tokenizer(const std::filesystem::path& folder, const Config& config);

}  // namespace speedrun

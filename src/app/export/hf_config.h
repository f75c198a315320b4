#pragma once
// What Hugging Face's transformers reads beside weights and tokenizer.
#include <string>

#include "config/config.h"
#include "model/gpt.h"

namespace speedrun {

// What a text is to the model.
struct HfText {
    int64_t end_of_text = 0;  // the token before each document
    int64_t context = 0;      // tokens that the model looks back on, at most
};

// config.json: the resolved section "model" of the run, and what its schedule has come to at the end
// (src/app/export/hf/configuration_speedrun.py says what each is). `settings`: what final_settings gave for
// `model`.
std::string hf_config_json(const Config& config, GPT& model, const StepSettings& settings,
                           const HfText& text);

// generation_config.json: end-of-text ends a text, ids that only pad the vocabulary are never drawn.
std::string hf_generation_config_json(const Config& config, int64_t end_of_text);

}  // namespace speedrun

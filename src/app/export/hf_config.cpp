#include "app/export/hf_config.h"

#include "util/json_document.h"

namespace speedrun {
namespace {

Json trained_end(GPT& model, const StepSettings& settings, int64_t context) {
    return {{"short_window", settings.window_short},
            {"long_window", settings.window_long},
            {"rotary_frequencies", model.rotary().angular_freq()},
            {"attention_scale", model.rotary().attn_scale()},
            {"tied", settings.tied},
            {"context", context}};
}

}  // namespace

std::string hf_config_json(const Config& config, GPT& model, const StepSettings& settings,
                           const HfText& text) {
    const Json whole{{"architectures", {"SpeedrunForCausalLM"}},
                     {"model_type", "speedrun"},
                     {"auto_map",
                      {{"AutoConfig", "configuration_speedrun.SpeedrunConfig"},
                       {"AutoModelForCausalLM", "modeling_speedrun.SpeedrunForCausalLM"}}},
                     {"dtype", "float32"},
                     {"bos_token_id", text.end_of_text},
                     {"eos_token_id", text.end_of_text},
                     {"tie_word_embeddings", false},
                     {"trained_end", trained_end(model, settings, text.context)},
                     {"model", parse_json(config.resolved_json, "the resolved config").at("model")}};
    return pretty_json(whole) + "\n";
}

std::string hf_generation_config_json(const Config& config, int64_t end_of_text) {
    Json whole{{"bos_token_id", end_of_text},
               {"eos_token_id", end_of_text},
               {"pad_token_id", end_of_text},
               {"use_cache", false}};
    for (int64_t id = config.data.vocab_size; id < config.model.vocab_size; ++id)
        whole["suppress_tokens"].push_back(id);
    return pretty_json(whole) + "\n";
}

}  // namespace speedrun

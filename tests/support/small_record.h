#pragma once
// Record 43's config with another width, vocabulary, number of heads and length of the pad.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/load_config.h"

namespace speedrun {

struct SmallSizes {
    int64_t d_model = 32, vocab_size = 128, n_head = 2, pad = 2;
};

inline Config small_record(const SmallSizes& sizes = {}, std::vector<std::string> overrides = {}) {
    const auto set = [&](const std::string& path, const nlohmann::json& value) {
        overrides.push_back(path + "=" + value.dump());
    };
    const int64_t head_dim = sizes.d_model / sizes.n_head;
    set("model.d_model", sizes.d_model);
    set("model.mlp_hidden", 4 * sizes.d_model);
    set("model.n_head", sizes.n_head);
    set("model.head_dim", head_dim);
    set("model.rope.rotary_dims", head_dim / 2);
    set("model.vocab_size", sizes.vocab_size);
    set("data.vocab_size", sizes.vocab_size);
    set("data.bos_id", sizes.vocab_size - 1);
    set("model.params.scalars.shape", {62 + sizes.pad});
    if (sizes.pad > 0)
        set("model.params.scalars.slices.pad.shape", {sizes.pad});
    else
        set("model.params.scalars.slices.pad", nullptr);
    return load_config(SPEEDRUN_SOURCE_DIR "/configs/record_43.json", overrides);
}

}  // namespace speedrun

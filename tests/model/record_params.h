#pragma once
// Record 43's parameters as a config declares them, for any width, vocabulary, number of heads and length of
// the pad.
#include <cmath>
#include <cstdint>

#include "config/config.h"

namespace speedrun::testing {

inline ModelConfig record_params(int64_t dim, int64_t vocab, int64_t heads, int64_t pad = 2) {
    ModelConfig model;
    model.vocab_size = vocab;
    model.d_model = dim;
    model.n_head = heads;
    model.n_layer = 12;
    const Init zeros, normal{Init::Kind::normal, 1.0},
        uniform{Init::Kind::uniform, 0.5 / std::sqrt(double(dim))};
    const std::vector<int64_t> attn{1, 2, 3, 4, 5, 6, 8, 9, 10, 11}, mlp{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const std::vector<int64_t> table{vocab, dim}, stored{dim, 4 * dim};
    const auto fp32 = Dtype::fp32, bf16 = Dtype::bf16;
    model.params = {
        {"embed", table, bf16, {}, {normal}, {}, "embed.weight", {}},
        {"value_embeds", {3, vocab, dim}, bf16, {}, {normal}, {}, "value_embeds.{k}.weight", {}},
        {"lm_head", table, bf16, {}, {zeros}, {}, "lm_head.weight", {}},
        {"attn_qkvo",
         {10, 4, dim, dim},
         fp32,
         attn,
         {uniform, uniform, uniform, zeros},
         {},
         "blocks.{i}.attn.qkvo_w",
         stored},
        {"mlp_fc", {11, dim, 4 * dim}, fp32, mlp, {uniform}, {}, "blocks.{i}.mlp.c_fc", {}},
        {"mlp_proj", {11, dim, 4 * dim}, fp32, mlp, {zeros}, {}, "blocks.{i}.mlp.c_proj", {}},
        {"attn_gate", {10, heads, 12}, bf16, attn, {zeros}, {}, "blocks.{i}.attn.attn_gate.weight", {}},
        {"smear_gate", {1, 1, 12}, bf16, {}, {zeros}, {}, "smear_gate.weight", {1, 12}},
        {"scalars", {62 + pad}, fp32, {}, {}, {}, "scalars", {}},
    };
    model.params.back().slices = {{"skip", 0, {12}, {-1.5}},
                                  {"block", 12, {12, 2}, {1.0, 0.0}},
                                  {"sa", 36, {12, 2}, {0.5, 0.5}},
                                  {"smear", 60, {}, {0.0}},
                                  {"backout", 61, {}, {0.5}}};
    if (pad > 0) model.params.back().slices.push_back({"pad", 62, {pad}, {1.0}});
    model.input.token = "embed";
    model.input.value_embeds = "value_embeds";
    model.output.head = "lm_head";
    return model;
}

}  // namespace speedrun::testing

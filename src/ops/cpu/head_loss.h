#pragma once
#include <c10/util/BFloat16.h>

#include <cstdint>
#include <vector>

#include "ops/head_loss.h"

namespace speedrun::ops::cpu {

// What head_loss works on: contiguous arrays, T = float or bf16 (with has_bf16_brgemm() and an even d),
// |softcap.height()| <= SoftcapPass::max_height.
template <class T>
struct HeadProblem {
    const T* x;                   // [tokens, d]
    const T* w;                   // [vocab, d]
    const float* bias;            // [vocab]; null: none
    const int64_t* targets;       // [tokens], each in [0, vocab)
    std::vector<double> weights;  // of a token's own target and of those of the tokens after it
    bool keep_normaliser;         // Targets::Tail
    const int64_t* prefix_of;     // [vocab], of each target in [-1, vocab); null: no target has a prefix
    double prefix_weight;
    int64_t tokens, vocab, d;
    Softcap softcap;
    float* loss;  // [tokens]
};

// Where the training form puts its gradients: dx [tokens, d] is written, dw [vocab, d] (exactly one pointer
// set) added to.
template <class T>
struct HeadGradients {
    double grad_scale;
    T* dx;
    float* dw_fp32;
    at::BFloat16* dw_bf16;
    float* dbias;  // [vocab], added to; null where there is no bias
};

// gradients null: the loss only.
void head_loss(const HeadProblem<float>& problem, const HeadGradients<float>* gradients);
void head_loss(const HeadProblem<at::BFloat16>& problem, const HeadGradients<at::BFloat16>* gradients);

// Bytes that a training call leaves with the process for the next one, and of what it widens, which passes.
// `item`: of an element of x and w.
struct HeadScratch {
    int64_t kept = 0, passing = 0;
};
HeadScratch head_scratch(int64_t tokens, int64_t vocab, int64_t d, int64_t item, bool bf16_gradient);

}  // namespace speedrun::ops::cpu

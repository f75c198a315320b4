#pragma once
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "model/gpt.h"

namespace speedrun {

struct SampleOptions {
    int64_t tokens = 200;      // to generate
    double temperature = 0.8;  // 0: always the likeliest token
    int64_t top_k = 50;        // 0: all of the vocabulary
    int64_t context = 1024;    // tokens the model looks back on, at most
    uint64_t seed = 1;
    int32_t vocab_size = 0;   // ids from here on are padding and never drawn
    int32_t stop_token = -1;  // ends the text; not emitted
};

// Draws one index from softmax(logits / temperature) over the top_k largest of the first vocab_size logits
// (fp32, CPU). UserError where those are not finite.
int32_t draw_token(const at::Tensor& logits, const SampleOptions& options, std::mt19937_64& random);

// Continues `prompt` (not empty), calling `emit` for each new token as it comes. The same seed gives the same
// text.
void sample(GPT& model, const StepSettings& settings, std::vector<int32_t> prompt,
            const SampleOptions& options, const std::function<void(int32_t)>& emit);

}  // namespace speedrun

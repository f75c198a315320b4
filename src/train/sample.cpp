#include "train/sample.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "util/error.h"

namespace speedrun {
namespace {

// The model always sees the same number of tokens, so that its buffers are reused; what follows the text is
// never looked at by it.
struct Lookback {
    std::vector<int32_t> tokens;
    int64_t last;
};

Lookback last_window(const std::vector<int32_t>& text, int64_t context) {
    const auto begin = std::max<int64_t>(0, static_cast<int64_t>(text.size()) - context);
    Lookback window{{text.begin() + begin, text.end()}, static_cast<int64_t>(text.size()) - begin - 1};
    window.tokens.resize(static_cast<size_t>(context), 0);
    return window;
}

}  // namespace

int32_t draw_token(const at::Tensor& logits, const SampleOptions& options, std::mt19937_64& random) {
    const at::Tensor real = logits.narrow(0, 0, options.vocab_size);
    if (!at::isfinite(real).all().item<bool>())
        throw UserError("the model's logits are not finite: its weights are not, or have diverged");
    if (options.temperature == 0) return real.argmax().item<int32_t>();
    const int64_t k =
        options.top_k == 0 ? options.vocab_size : std::min<int64_t>(options.top_k, options.vocab_size);
    const auto [values, indices] = real.topk(k);
    const at::Tensor probabilities = at::softmax(values.to(at::kDouble) / options.temperature, 0);
    double left = std::uniform_real_distribution<double>(0, 1)(random);
    const double* p = probabilities.const_data_ptr<double>();
    int64_t chosen = 0;
    while (chosen + 1 < k && left >= p[chosen]) left -= p[chosen++];
    return indices[chosen].item<int32_t>();
}

void sample(GPT& model, const StepSettings& settings, std::vector<int32_t> prompt,
            const SampleOptions& options, const std::function<void(int32_t)>& emit) {
    check(!prompt.empty(), "an empty prompt has no next token");
    std::mt19937_64 random(options.seed);
    const auto whole = static_cast<int64_t>(prompt.size()) + options.tokens;
    const int64_t context = std::min(options.context, whole);
    for (int64_t i = 0; i < options.tokens; ++i) {
        const Lookback window = last_window(prompt, context);
        const at::Tensor logits = model.next_token_logits(window.tokens, window.last, settings).cpu();
        const int32_t token = draw_token(logits, options, random);
        if (token == options.stop_token) return;
        prompt.push_back(token);
        emit(token);
    }
}

}  // namespace speedrun

#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "config/config.h"
#include "ops/rotary.h"

namespace speedrun {

// Rows that the tables have for micro-batches of up to max_tokens: paired heads stand at twice as many
// positions.
int64_t rotary_positions(const ModelConfig& model, int64_t max_tokens);

// Half-truncated rotary tables with YaRN at every change of the long window.
// Frequencies (1/theta)^(j/(n-1)) for j < n = rotary_dims/2, zero for the other pairs; angles are formed in
// fp32 as the reference forms them, and the tables stored in rope.table_dtype.
class Rotary {
  public:
    // Positions begin again every `period` tokens; 0: they do not.
    Rotary(const ModelConfig& model, int64_t block_size, int64_t max_tokens, at::Device device,
           int64_t period = 0);

    void reset(
        int64_t window);  // tables for a model whose long window has been `window` blocks from the start
    // Stretches the tables from the current long window to `window` blocks (arXiv 2309.00071 as record 43
    // applies it): f *= s + c (1 - s), s = old/new, c = clamp((block old f / 2 pi - alpha) / (beta - alpha),
    // 0, 1); softmax scale *= 1 + coef ln(new/old). Cumulative; does nothing where the window is already
    // `window`.
    void stretch(int64_t window);

    // For queries and keys of plain heads, or of paired ones, which stand at twice as many positions.
    ops::RotaryTables tables(bool paired) const;
    const at::Tensor& cos() const { return cos_; }  // [positions, head_dim/2]
    const at::Tensor& sin() const { return sin_; }
    const std::vector<float>& angular_freq() const { return angular_freq_; }  // [head_dim/2]
    double attn_scale() const { return attn_scale_; }
    int64_t window() const { return window_; }

  private:
    void fill_tables();

    ModelConfig::Rope rope_;
    int64_t block_size_, period_;
    int64_t window_ = 0;
    double attn_scale_;
    std::vector<float> angular_freq_;
    at::Tensor cos_, sin_;
};

}  // namespace speedrun

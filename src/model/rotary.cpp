#include "model/rotary.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "ops/dtype.h"
#include "util/error.h"

namespace speedrun {

int64_t rotary_positions(const ModelConfig& model, int64_t max_tokens) {
    const auto is_paired = [](const LayerConfig& layer) {
        return layer.attn && layer.attn->kind == AttentionConfig::Kind::paired;
    };
    return std::ranges::any_of(model.layers, is_paired) ? 2 * max_tokens : max_tokens;
}

Rotary::Rotary(const ModelConfig& model, int64_t block_size, int64_t max_tokens, at::Device device,
               int64_t period)
    : rope_(model.rope),
      block_size_(block_size),
      period_(period),
      attn_scale_(model.rope.softmax_scale_init) {
    const auto dtype = scalar_type(rope_.table_dtype);
    const auto options = at::TensorOptions().dtype(dtype).device(device);
    cos_ = at::empty({rotary_positions(model, max_tokens), model.head_dim / 2}, options);
    sin_ = at::empty_like(cos_);
    check(rope_.rotary_dims <= model.head_dim, "more rotary dims than the head has");
}

ops::RotaryTables Rotary::tables(bool paired) const {
    using Layout = ops::RotaryTables::Layout;
    const bool pairs = rope_.layout == ModelConfig::Rope::Layout::pairs;
    return {cos_, sin_, pairs ? Layout::pairs : Layout::halves, paired};
}

void Rotary::reset(int64_t window) {
    window_ = window;
    attn_scale_ = rope_.softmax_scale_init;
    // float32 throughout, like torch.linspace and torch.pow in the reference
    const int64_t turning = rope_.rotary_dims / 2;
    const at::Tensor exponent = at::linspace(0, 1, turning, at::kFloat);
    const at::Tensor freq = at::pow(1.0 / rope_.theta, exponent).contiguous();
    angular_freq_.assign(static_cast<size_t>(cos_.size(1)), 0.0F);
    std::copy_n(freq.const_data_ptr<float>(), turning, angular_freq_.begin());
    fill_tables();
}

void Rotary::stretch(int64_t window) {
    if (window == window_) return;
    const double scaling = static_cast<double>(window_) / static_cast<double>(window);
    for (float& f : angular_freq_) {
        const float rotations =
            static_cast<float>(block_size_ * window_) * f / static_cast<float>(2 * std::numbers::pi);
        const float c = std::clamp((rotations - static_cast<float>(rope_.yarn_alpha)) /
                                       static_cast<float>(rope_.yarn_beta - rope_.yarn_alpha),
                                   0.0F, 1.0F);
        f *= static_cast<float>(scaling) + c * static_cast<float>(1 - scaling);
    }
    attn_scale_ *=
        rope_.softmax_scale_log_coef * std::log(static_cast<double>(window) / static_cast<double>(window_)) +
        1;
    window_ = window;
    fill_tables();
}

void Rotary::fill_tables() {
    if (cos_.is_meta()) return;
    // On the device: a stage begins with this, and 16 million cosines take a host a tenth of a second.
    const at::Tensor freq = at::from_blob(angular_freq_.data(), {cos_.size(1)}, at::kFloat).to(cos_.device());
    at::Tensor position = at::arange(cos_.size(0), freq.options());
    if (period_ > 0) position = position.remainder(period_);
    const at::Tensor theta = at::outer(position, freq);
    cos_.copy_(theta.cos());
    sin_.copy_(theta.sin());
}

}  // namespace speedrun

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <set>

#include "app/bench/ops/rows.h"
#include "ops/attention/attention.h"
#include "ops/cuda/fused.h"
#include "ops/gemm.h"
#include "ops/head_loss.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

using Calls = std::function<void()>;

// A linear layer, and how its weights are kept.
struct Linear {
    std::string name;
    int64_t in, out;
    bool in_first;  // [in, out] instead of [out, in]
    at::ScalarType grad;
    double count;
    bool adds_to_dx = false;
    std::string within = {};
};

// y = x W^T, dx = dy W, dW += dy^T x.
void add_linear(const PassShapes& s, const Linear& layer, std::vector<Op>& ops) {
    const auto bytes = [](int64_t rows, int64_t cols, at::ScalarType dtype) {
        return static_cast<double>(rows * cols) * bytes_of_item(dtype);
    };
    const double x = bytes(s.tokens, layer.in, s.act), y = bytes(s.tokens, layer.out, s.act),
                 w = bytes(layer.in, layer.out, s.act), dw = bytes(layer.in, layer.out, layer.grad);
    const auto add = [&](const char* pass, double moved, std::function<Calls()> prepare) {
        ops.push_back({.name = layer.name + pass,
                       .shape = s.rows(layer.in) + "x" + std::to_string(layer.out),
                       .per_step = layer.count,
                       .within = layer.within,
                       .flop = 2 * static_cast<double>(s.tokens * layer.in * layer.out),
                       .bytes = moved,
                       .prepare = std::move(prepare)});
    };
    const auto make_x = [s, layer] { return s.make({s.tokens, layer.in}); };
    const auto make_y = [s, layer] { return s.make({s.tokens, layer.out}); };
    const auto make_w = [s, layer](at::ScalarType dtype) {
        return layer.in_first ? s.make({layer.in, layer.out}, dtype) : s.make({layer.out, layer.in}, dtype);
    };
    add(".forward", x + w + y, [=]() -> Calls {
        const at::Tensor a = make_x(), weights = make_w(s.act), c = make_y();
        const at::Tensor b = layer.in_first ? weights : weights.t();
        return [=] { ops::gemm(a, b, c); };
    });
    add(".dgrad", y + w + (layer.adds_to_dx ? 2 : 1) * x, [=]() -> Calls {
        const at::Tensor a = make_y(), weights = make_w(s.act), c = make_x();
        const at::Tensor b = layer.in_first ? weights.t() : weights;
        return [=] { ops::gemm(a, b, c, layer.adds_to_dx); };
    });
    add(".wgrad", x + y + 2 * dw, [=]() -> Calls {
        const at::Tensor in = make_x(), out = make_y(), c = make_w(layer.grad);
        if (layer.in_first) return [=] { ops::gemm(in.t(), out, c, /*accumulate=*/true); };
        return [=] { ops::gemm(out.t(), in, c, /*accumulate=*/true); };
    });
}

void add_layers(const PassShapes& s, std::vector<Op>& ops) {
    const auto find = [&](auto has) {
        return std::ranges::find_if(
            s.model.layers, [&](const LayerConfig& layer) { return !layer.skip_layer && has(layer); });
    };
    const auto attention = find([](const LayerConfig& layer) { return layer.attn.has_value(); });
    if (attention != s.model.layers.end()) {
        const at::ScalarType grad = s.dtype_of(attention->attn->param);
        const double count = s.counts.attentions();
        add_linear(s, {"gemm.qkv", s.d, 3 * s.d, false, grad, count, /*adds_to_dx=*/true}, ops);
        add_linear(s, {"gemm.o", s.d, s.d, false, grad, count}, ops);
    }
    const auto mlp = find([](const LayerConfig& layer) { return layer.mlp.has_value(); });
    if (mlp == s.model.layers.end()) return;
    const std::string &fc = mlp->mlp->fc, &proj = mlp->mlp->proj;
    const int64_t hidden = s.model.param(fc).shape[2];
    add_linear(s, {"gemm.fc", s.d, hidden, true, s.dtype_of(fc), s.counts.mlps}, ops);
    add_linear(s, {"gemm.proj", hidden, s.d, false, s.dtype_of(proj), s.counts.mlps}, ops);
}

// ---- attention
// -------------------------------------------------------------------------------------------------

struct AttentionTensors {
    AttentionTensors(const PassShapes& s, int64_t window)
        : q(s.make(shape(s))),
          k(s.make(shape(s))),
          v(s.make(shape(s))),
          out(s.make(shape(s))),
          dout(s.make(shape(s))),
          dq(s.make(shape(s))),
          dk(s.make(shape(s))),
          dv(s.make(shape(s))),
          lse(s.make({s.model.n_head, s.tokens}, at::kFloat)),
          mask{at::tensor(s.batch.cu_seqlens, at::kInt).to(s.device), window} {}
    static std::vector<int64_t> shape(const PassShapes& s) {
        return {s.tokens, s.model.n_head, s.model.head_dim};
    }
    at::Tensor q, k, v, out, dout, dq, dk, dv, lse;
    ops::AttentionMask mask;
};

constexpr double kScale = 0.1;

void forward(const AttentionTensors& t) {
    ops::attention_forward(t.q, t.k, t.v, t.mask, kScale, t.out, t.lse);
}

void add_attention(const PassShapes& s, int64_t window, double count, std::vector<Op>& ops) {
    const double pairs =
        static_cast<double>(visible_pairs(s.batch.cu_seqlens, window) * s.model.n_head * s.model.head_dim);
    const double lse = static_cast<double>(s.model.n_head) * s.numbers;
    const std::string suffix = ".w" + std::to_string(window);
    const std::string shape = s.rows(s.model.n_head) + "x" + std::to_string(s.model.head_dim);
    ops.push_back(
        {.name = "attention.forward" + suffix,
         .shape = shape,
         .per_step = count,
         .flop = 4 * pairs,
         .bytes = 4 * s.one + lse,
         .prepare = [s, window]() -> Calls { return [t = AttentionTensors(s, window)] { forward(t); }; }});
    ops.push_back({.name = "attention.backward" + suffix,
                   .shape = shape,
                   .per_step = count,
                   .flop = 8 * pairs,
                   .bytes = 8 * s.one + lse,
                   .prepare = [s, window]() -> Calls {
                       const AttentionTensors t(s, window);
                       forward(t);  // a sum that fits the logits
                       return [t] {
                           ops::attention_backward(t.dout, t.q, t.k, t.v, t.out, t.lse, t.mask, kScale,
                                                   {t.dq, t.dk, t.dv});
                       };
                   }});
}

void add_attentions(const PassShapes& s, std::vector<Op>& ops) {
    std::set<int64_t> windows;
    for (const Stage& stage : s.config.schedule.stages) {
        const StepSettings settings =
            settings_at(s.config, std::min(stage.start, s.config.schedule.total_steps()));
        windows.insert({settings.window_short, settings.window_long});
    }
    for (const int64_t window : windows)
        add_attention(s, window,
                      (window == s.settings.window_short ? s.counts.short_windows : 0) +
                          (window == s.settings.window_long ? s.counts.long_windows : 0),
                      ops);
}

// ---- head
// ------------------------------------------------------------------------------------------------------

ops::Softcap softcap_of(const ModelConfig& model) {
    return {model.output.softcap_a, model.output.softcap_b, model.output.softcap_c};
}

std::optional<ops::Fp8Scales> fp8_of(const NumericsConfig::Head& head) {
    if (head.format != NumericsConfig::Head::Format::fp8) return {};
    return ops::Fp8Scales{head.x_scale, head.w_scale, head.grad_scale};
}

Op head_op(const PassShapes& s) {
    const std::string& param = s.model.output.head;
    const int64_t vocab = s.model.param(param).shape[0];
    const double weights = static_cast<double>(vocab * s.d);
    return {.name = "head_loss",
            .shape = s.rows(s.d) + "x" + std::to_string(vocab),
            .per_step = 1,
            .flop = 6 * static_cast<double>(s.tokens) * weights,
            .bytes = 2 * s.one + weights * (bytes_of_item(s.act) + 2 * bytes_of_item(s.dtype_of(param))),
            .prepare = [s, param, vocab]() -> Calls {
                const at::Tensor x = s.make({s.tokens, s.d}), dx = at::empty_like(x),
                                 w = s.make({vocab, s.d}, s.used_dtype(param)),
                                 dw = at::zeros({vocab, s.d}, w.options().dtype(s.dtype_of(param))),
                                 targets = at::tensor(s.batch.targets, at::kLong).to(s.device),
                                 loss = s.make_numbers();
                const auto cap = softcap_of(s.model);
                const auto fp8 = fp8_of(s.config.numerics.lm_head);
                return [=] { ops::head_loss_backward(x, w, targets, cap, 1, loss, dx, dw, fp8); };
            }};
}

// The kernel between a GPU's products, which leaves the gradient in the logits' place: alone, of logits that
// are that gradient from the second call on.
Op softcap_loss_op(const PassShapes& s, int64_t vocab) {
    return {.name = "softcap_loss",
            .shape = s.rows(vocab),
            .per_step = 1,
            .within = "head_loss",
            .bytes = 2 * static_cast<double>(s.tokens * vocab) * bytes_of_item(s.act),
            .prepare = [s, vocab]() -> Calls {
                const at::Tensor logits = s.make({s.tokens, vocab}), loss = s.make_numbers(),
                                 targets = at::tensor(s.batch.targets, at::kLong).to(s.device);
                const auto cap = softcap_of(s.model);
                return [=] {
                    ops::cuda::on_device_of(logits).softcap_loss(logits, targets, cap, 1, loss, logits);
                };
            }};
}

void add_head(const PassShapes& s, std::vector<Op>& ops) {
    ops.push_back(head_op(s));
    const std::string& param = s.model.output.head;
    const int64_t vocab = s.model.param(param).shape[0];
    if (s.device.is_cuda()) ops.push_back(softcap_loss_op(s, vocab));
    add_linear(s,
               {.name = "gemm.head",
                .in = s.d,
                .out = vocab,
                .in_first = false,
                .grad = s.dtype_of(param),
                .count = 1,
                .within = "head_loss"},
               ops);
}

}  // namespace

int64_t visible_pairs(std::span<const int32_t> cu_seqlens, int64_t window) {
    int64_t pairs = 0;
    for (size_t k = 0; k + 1 < cu_seqlens.size(); ++k) {
        const int64_t length = cu_seqlens[k + 1] - cu_seqlens[k];
        const int64_t filling = std::min(length, window + 1);  // queries that see the document's first token
        pairs += filling * (filling + 1) / 2 + (length - filling) * (window + 1);
    }
    return pairs;
}

std::vector<Op> product_ops(const PassShapes& pass) {
    std::vector<Op> ops;
    add_layers(pass, ops);
    add_attentions(pass, ops);
    add_head(pass, ops);
    for (Op& op : ops) op.per_step *= pass.passes;
    return ops;
}

}  // namespace speedrun

#include <ATen/ATen.h>

#include <algorithm>
#include <set>

#include "app/bench/ops/rows.h"
#include "model/parameters.h"
#include "ops/embedding.h"
#include "ops/gate.h"
#include "ops/mix.h"
#include "ops/norm.h"
#include "ops/relu2.h"
#include "ops/rotary.h"
#include "ops/smear.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

using Calls = std::function<void()>;

void add_embedding(const PassShapes& s, std::vector<Op>& ops) {
    const std::string& more = s.model.input.value_embeds;
    const double count = 1 + (more.empty() ? 0.0 : static_cast<double>(s.model.param(more).shape[0]));
    const at::ScalarType dtype = s.dtype_of(s.model.input.token);
    const auto distinct = std::set<int32_t>(s.batch.inputs.begin(), s.batch.inputs.end()).size();
    const double row = static_cast<double>(s.d) * bytes_of_item(dtype);
    const std::string shape =
        s.rows(s.d) + format_text(" of %lld", static_cast<long long>(s.model.vocab_size));
    const auto table = [s, dtype] { return s.make({s.model.vocab_size, s.d}, dtype); };
    ops.push_back({.name = "embedding",
                   .shape = shape,
                   .per_step = count,
                   .bytes = static_cast<double>(s.tokens) * row + s.one + s.numbers,
                   .prepare = [s, table]() -> Calls {
                       const at::Tensor w = table(), ids = s.ids(), out = s.make({s.tokens, s.d});
                       return [=] { ops::embedding(w, ids, out); };
                   }});
    ops.push_back({.name = "embedding.backward",
                   .shape = shape,
                   .per_step = count,
                   .bytes = 2 * static_cast<double>(distinct) * row + s.one + s.numbers,
                   .prepare = [s, table]() -> Calls {
                       const at::Tensor dw = table(), ids = s.ids(), dout = s.make({s.tokens, s.d});
                       return [=] { ops::embedding_backward(dout, ids, dw); };
                   }});
}

struct SmearTensors {
    SmearTensors(const PassShapes& s, const GateConfig& of)
        : e(s.make({s.tokens, s.d})),
          out(s.make({s.tokens, s.d})),
          de(s.make({s.tokens, s.d})),
          w(s.make({of.input_dims}, s.used_dtype(of.param))),
          dw(s.make({of.input_dims}, s.dtype_of(of.param))),
          lambda(s.make({1}, at::kFloat)),
          dlambda(s.make({1}, at::kFloat)),
          gate(s.make_numbers()) {}
    at::Tensor e, out, de, w, dw, lambda, dlambda, gate;
};

void add_smear(const PassShapes& s, std::vector<Op>& ops) {
    if (!s.model.input.smear) return;
    const GateConfig& gate = s.model.input.smear->gate;
    ops.push_back({.name = "smear",
                   .shape = s.rows(s.d),
                   .per_step = 1,
                   .bytes = 2 * s.one + s.numbers,
                   .prepare = [s, gate]() -> Calls {
                       return [t = SmearTensors(s, gate)] { ops::smear(t.e, t.w, t.lambda, t.out, t.gate); };
                   }});
    ops.push_back({.name = "smear.backward",
                   .shape = s.rows(s.d),
                   .per_step = 1,
                   .bytes = 3 * s.one + s.numbers,
                   .prepare = [s, gate]() -> Calls {
                       return [t = SmearTensors(s, gate)] {
                           ops::smear_backward(t.out, t.e, t.w, t.lambda, t.gate, t.de, t.dw, t.dlambda);
                       };
                   }});
}

void add_norm(const PassShapes& s, std::vector<Op>& ops) {
    ops.push_back({.name = "norm",
                   .shape = s.rows(s.d),
                   .per_step = 1,
                   .bytes = 2 * s.one + s.numbers,
                   .prepare = [s]() -> Calls {
                       const at::Tensor x = s.make({s.tokens, s.d}), y = s.make({s.tokens, s.d}),
                                        rstd = s.make_numbers();
                       return [=] { ops::rms_norm(x, 1e-7, y, rstd); };
                   }});
    ops.push_back({.name = "norm.backward",
                   .shape = s.rows(s.d),
                   .per_step = s.counts.norm_backwards,
                   .bytes = 4 * s.one + s.numbers,
                   .prepare = [s]() -> Calls {
                       const at::Tensor x = s.make({s.tokens, s.d}), dy = s.make({s.tokens, s.d}),
                                        dx = s.make({s.tokens, s.d}), rstd = s.make_numbers();
                       return [=] { ops::rms_norm_backward(dy, x, rstd, dx, /*accumulate=*/true); };
                   }});
}

std::vector<at::Tensor> make_sources(const PassShapes& s, size_t count) {
    std::vector<at::Tensor> sources;
    for (size_t j = 0; j < count; ++j) sources.push_back(s.make({s.tokens, s.d}));
    return sources;
}

Op mix_op(const PassShapes& s, const MixKind& kind, double count) {
    const size_t tensors = kind.sources + (kind.with_norm ? 2 : 1);
    return {.name = format_text(kind.with_norm ? "mix%zu.norm" : "mix%zu", kind.sources),
            .shape = s.rows(s.d),
            .per_step = count,
            .bytes = static_cast<double>(tensors) * s.one + (kind.with_norm ? s.numbers : 0),
            .prepare = [s, kind]() -> Calls {
                const auto sources = make_sources(s, kind.sources);
                const at::Tensor c = s.make({static_cast<int64_t>(kind.sources)}, at::kFloat),
                                 y = s.make({s.tokens, s.d}), normed = s.make({s.tokens, s.d}),
                                 rstd = s.make_numbers();
                if (!kind.with_norm) return [=] { ops::mix(sources, c, y); };
                return [=] { ops::mix_norm(sources, c, 1e-7, y, normed, rstd); };
            }};
}

Op mix_backward_op(const PassShapes& s, const MixKind& kind, double count) {
    const bool all = kind.passed == kind.sources;
    const std::string name =
        format_text(all ? "mix%zu.backward" : "mix%zu.backward.%zu", kind.sources, kind.passed);
    return {.name = name,
            .shape = s.rows(s.d),
            .per_step = count,
            .bytes = static_cast<double>(1 + kind.trained + kind.passed) * s.one,
            .prepare = [s, kind]() -> Calls {
                // Those with coefficient 1 come first, as "x" does.
                std::vector<at::Tensor> sources(kind.sources), dsources(kind.sources);
                std::vector<uint8_t> accumulate(kind.sources, 0), wanted(kind.sources, 0);
                for (size_t j = kind.sources - kind.trained; j < kind.sources; ++j) {
                    sources[j] = s.make({s.tokens, s.d});
                    wanted[j] = 1;
                }
                for (size_t j = kind.sources - kind.passed; j < kind.sources; ++j)
                    dsources[j] = s.make({s.tokens, s.d});
                const at::Tensor c = s.make({static_cast<int64_t>(kind.sources)}, at::kFloat),
                                 dc = at::zeros_like(c), dy = s.make({s.tokens, s.d});
                return [=] { ops::mix_backward(dy, sources, c, dsources, accumulate, dc, wanted); };
            }};
}

// One tensor of all heads, what a layer's normed input is, and the tables and numbers of rotary and gate.
struct HeadTensors {
    explicit HeadTensors(const PassShapes& s)
        : qkv(s.make({s.tokens, 3 * s.d})),
          part(qkv.narrow(1, 0, s.d).view({s.tokens, s.model.n_head, s.model.head_dim})),
          y(s.make({s.tokens, s.model.n_head, s.model.head_dim})),
          out(at::empty_like(y)),
          x(s.make({s.tokens, s.d})),
          dx(s.make({s.tokens, s.d})),
          cos(s.make({s.tokens, s.model.head_dim / 2}, scalar_type(s.model.rope.table_dtype))),
          sin(at::empty_like(cos).copy_(cos)),
          numbers(s.make({s.tokens, s.model.n_head}, at::kFloat)) {}
    at::Tensor qkv, part, y, out, x, dx, cos, sin, numbers;
};

void add_rotary(const PassShapes& s, std::vector<Op>& ops) {
    const double tables = static_cast<double>(s.tokens * s.model.head_dim) *
                          bytes_of_item(scalar_type(s.model.rope.table_dtype)),
                 numbers = static_cast<double>(s.model.n_head) * s.numbers;
    ops.push_back({.name = "rotary",
                   .shape = s.rows(s.d),
                   .per_step = 2 * s.counts.attentions(),
                   .bytes = 2 * s.one + tables + numbers,
                   .prepare = [s]() -> Calls {
                       return [t = HeadTensors(s)] {
                           ops::qk_norm_rotary(t.part, t.cos, t.sin, 1e-7, t.y, t.numbers);
                       };
                   }});
    ops.push_back({.name = "rotary.backward",
                   .shape = s.rows(s.d),
                   .per_step = 2 * s.counts.attentions(),
                   .bytes = 3 * s.one + tables + numbers,
                   .prepare = [s]() -> Calls {
                       return [t = HeadTensors(s)] {
                           ops::qk_norm_rotary_backward(t.y, t.part, t.cos, t.sin, t.numbers, t.out);
                       };
                   }});
}

void add_gate(const PassShapes& s, std::vector<Op>& ops) {
    const auto gated = std::ranges::find_if(s.model.layers, [](const LayerConfig& layer) {
        return !layer.skip_layer && layer.attn && layer.attn->out_gate;
    });
    if (gated == s.model.layers.end()) return;
    const GateConfig& gate = *gated->attn->out_gate;
    const double read = static_cast<double>(s.tokens * gate.input_dims) * bytes_of_item(s.act),
                 numbers = static_cast<double>(s.model.n_head) * s.numbers;
    const auto weight = [s, gate](at::ScalarType dtype) {
        return s.make({s.model.n_head, gate.input_dims}, dtype);
    };
    ops.push_back({.name = "gate",
                   .shape = s.rows(s.d),
                   .per_step = s.counts.gates,
                   .bytes = 2 * s.one + read + numbers,
                   .prepare = [s, gate, weight]() -> Calls {
                       return [t = HeadTensors(s), w = weight(s.used_dtype(gate.param))] {
                           ops::head_gate(t.y, t.x, w, t.out, t.numbers);
                       };
                   }});
    ops.push_back({.name = "gate.backward",
                   .shape = s.rows(s.d),
                   .per_step = s.counts.gates,
                   .bytes = 3 * s.one + 3 * read + numbers,
                   .prepare = [s, gate, weight]() -> Calls {
                       return
                           [t = HeadTensors(s), dout = s.make({s.tokens, s.model.n_head, s.model.head_dim}),
                            w = weight(s.used_dtype(gate.param)), dw = weight(s.dtype_of(gate.param))] {
                               ops::head_gate_backward(dout, t.y, t.x, w, t.numbers, t.out, t.dx, dw);
                           };
                   }});
}

void add_relu2(const PassShapes& s, std::vector<Op>& ops) {
    const auto layer = std::ranges::find_if(
        s.model.layers, [](const LayerConfig& one) { return !one.skip_layer && one.mlp; });
    if (layer == s.model.layers.end()) return;
    const int64_t hidden = s.model.param(layer->mlp->fc).shape[2];
    const double one = static_cast<double>(s.tokens * hidden) * bytes_of_item(s.act);
    ops.push_back({.name = "relu2",
                   .shape = s.rows(hidden),
                   .per_step = s.counts.mlps,
                   .bytes = 2 * one,
                   .prepare = [s, hidden]() -> Calls {
                       const at::Tensor x = s.make({s.tokens, hidden}), y = at::empty_like(x);
                       return [=] { ops::relu2(x, y); };
                   }});
    ops.push_back({.name = "relu2.backward",
                   .shape = s.rows(hidden),
                   .per_step = s.counts.mlps,
                   .bytes = 3 * one,
                   .prepare = [s, hidden]() -> Calls {
                       const at::Tensor x = s.make({s.tokens, hidden}), dy = s.make({s.tokens, hidden}),
                                        dx = at::empty_like(x);
                       return [=] { ops::relu2_backward(dy, x, dx); };
                   }});
}

}  // namespace

std::vector<Op> element_ops(const PassShapes& pass) {
    std::vector<Op> ops;
    add_embedding(pass, ops);
    add_smear(pass, ops);
    add_norm(pass, ops);
    for (const auto& [kind, count] : pass.counts.mixes) ops.push_back(mix_op(pass, kind, count));
    for (const auto& [kind, count] : pass.counts.mix_backwards)
        ops.push_back(mix_backward_op(pass, kind, count));
    add_rotary(pass, ops);
    add_gate(pass, ops);
    add_relu2(pass, ops);
    for (Op& op : ops) op.per_step *= pass.passes;
    return ops;
}

}  // namespace speedrun

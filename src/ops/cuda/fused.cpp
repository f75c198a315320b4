#include "ops/cuda/fused.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>

#include <algorithm>
#include <string>
#include <utility>

#include "util/error.h"
#include "util/module.h"

namespace speedrun::ops::cuda {
namespace {

namespace raw = speedrun::cuda;

raw::Scalar scalar(const at::Tensor& x, const char* what) {
    check(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16,
          std::string(what) + ": neither fp32 nor bf16");
    return x.scalar_type() == at::kFloat ? raw::Scalar::f32 : raw::Scalar::bf16;
}

// [T, ...] as rows; an undefined tensor as none.
raw::Rows rows(const at::Tensor& x, at::IntArrayRef sizes, const char* what) {
    if (!x.defined()) return {};
    check(x.sizes() == sizes, std::string(what) + ": another shape than expected");
    int64_t expected = 1;
    for (int64_t dim = x.dim() - 1; dim >= 1; --dim) {
        check(x.size(dim) == 1 || x.stride(dim) == expected,
              std::string(what) + ": rows that are not contiguous");
        expected *= x.size(dim);
    }
    return {x.data_ptr(), x.stride(0), scalar(x, what)};
}

raw::Shape shape_of(const at::Tensor& x) {
    return {x.size(0), x.size(0) == 0 ? 0 : x.numel() / x.size(0)};
}

raw::Flat flat(const at::Tensor& x, int64_t count, const char* what) {
    if (!x.defined()) return {};
    check(x.numel() == count && x.is_contiguous(),
          std::string(what) + ": not contiguous, or of another size");
    return {x.data_ptr(), scalar(x, what)};
}

float* floats(const at::Tensor& x, int64_t count, const char* what) {
    if (!x.defined()) return nullptr;
    check(x.scalar_type() == at::kFloat, std::string(what) + ": not fp32");
    return static_cast<float*>(flat(x, count, what).data);
}

const int32_t* token_ids(const at::Tensor& ids, int64_t tokens) {
    check(ids.scalar_type() == at::kInt && ids.numel() == tokens && ids.is_contiguous(),
          "embedding: ids are not int32 [T]");
    return ids.const_data_ptr<int32_t>();
}

at::Tensor partials(const at::Tensor& like, int64_t width) {
    return at::empty({raw::kPartialSets * width}, like.options().dtype(at::kFloat));
}

raw::Mix mix_of(std::span<const at::Tensor> sources, const at::Tensor& coefficients, const at::Tensor& y) {
    check(!sources.empty() && sources.size() <= static_cast<size_t>(raw::kMostSources),
          "mix: takes 1 to 8 sources");
    raw::Mix mix;
    mix.count = static_cast<int>(sources.size());
    for (size_t j = 0; j < sources.size(); ++j) mix.sources[j] = rows(sources[j], y.sizes(), "mix: source");
    for (int j = 0; j < mix.count; ++j)
        check(mix.sources[j].type == scalar(y, "mix: y"), "mix: sources of several dtypes");
    mix.coefficients = floats(coefficients, mix.count, "mix: coefficients");
    mix.y = rows(y, y.sizes(), "mix: y");
    return mix;
}

raw::Rotary rotary_of(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
    check(x.dim() == 3 && x.size(2) % 2 == 0 && cos.dim() == 2 && cos.size(0) >= x.size(0) &&
              cos.size(1) == x.size(2) / 2,
          "rotary: x is [T, H, D], D even, cos [T' >= T, D/2]");
    check(cos.scalar_type() == sin.scalar_type(), "rotary: cos and sin of one dtype");
    return {rows(cos, cos.sizes(), "rotary: cos"), rows(sin, cos.sizes(), "rotary: sin"), x.size(1)};
}

raw::HeadGate gate_of(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w) {
    check(y.dim() == 3 && x.dim() == 2 && w.dim() == 2 && x.size(0) == y.size(0) && w.size(0) == y.size(1) &&
              w.size(1) <= x.size(1),
          "head_gate: y is [T, H, D], x [T, d], w [H, n], n <= d");
    check(x.scalar_type() == y.scalar_type(), "head_gate: x and y of one dtype");
    return {rows(x, x.sizes(), "head_gate: x"), flat(w, w.numel(), "head_gate: w"), w.size(0), w.size(1)};
}

raw::Smear smear_of(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda) {
    check(e.dim() == 2 && w.numel() <= e.size(1), "smear: e is [T, d], w [n], n <= d");
    return {flat(w, w.numel(), "smear: w"), w.numel(), floats(lambda, 1, "smear: lambda")};
}

raw::SoftcapLoss softcap_loss_of(const at::Tensor& logits, const at::Tensor& targets, const Softcap& softcap,
                                 double grad_scale, const at::Tensor& loss_per_token) {
    check(targets.scalar_type() == at::kLong && targets.numel() == logits.size(0) && targets.is_contiguous(),
          "softcap_loss: targets are not int64 [T]");
    raw::SoftcapLoss loss;
    loss.logits = rows(logits, logits.sizes(), "softcap_loss: logits");
    loss.targets = targets.const_data_ptr<int64_t>();
    loss.a = static_cast<float>(softcap.a);
    loss.b = static_cast<float>(softcap.b);
    loss.c = static_cast<float>(softcap.c);
    loss.loss = floats(loss_per_token, logits.size(0), "softcap_loss: loss_per_token");
    loss.grad_scale = static_cast<float>(grad_scale);
    return loss;
}

uint8_t* bytes_of(const at::Tensor& x) {
    return static_cast<uint8_t*>(x.data_ptr());
}

constexpr const char* kModule = "libspeedrun_cuda.so";
constexpr const char* kNeeds = "CUDA's compiler (nvcc 13) and LibTorch's CUDA half";

const raw::Kernels& load_kernels() {
    const auto kernels = reinterpret_cast<decltype(&speedrun_cuda_kernels)>(
        module_symbol(kModule, "speedrun_cuda_kernels", kNeeds));
    return *kernels();
}

}  // namespace

void Fused::mix(std::span<const at::Tensor> sources, const at::Tensor& coefficients,
                const at::Tensor& y) const {
    kernels_.mix(mix_of(sources, coefficients, y), shape_of(y), stream_);
}

void Fused::mix_norm(std::span<const at::Tensor> sources, const at::Tensor& coefficients, double eps,
                     const at::Tensor& y, const at::Tensor& normed, const at::Tensor& rstd) const {
    raw::Mix mix = mix_of(sources, coefficients, y);
    mix.normed = rows(normed, y.sizes(), "mix_norm: normed");
    mix.rstd = floats(rstd, y.size(0), "mix_norm: rstd");
    mix.eps = static_cast<float>(eps);
    kernels_.mix(mix, shape_of(y), stream_);
}

void Fused::mix_backward(const at::Tensor& dy, std::span<const at::Tensor> sources,
                         const at::Tensor& coefficients, std::span<const at::Tensor> dsources,
                         std::span<const uint8_t> accumulate, const at::Tensor& dcoefficients,
                         std::span<const uint8_t> wants_dc) const {
    const size_t n = sources.size();
    check(n >= 1 && n <= static_cast<size_t>(raw::kMostSources) && dsources.size() == n &&
              accumulate.size() == n && wants_dc.size() == n,
          "mix_backward: 1 to 8 sources, and one gradient, accumulate and wants_dc for each");
    raw::MixBackward mix;
    mix.count = static_cast<int>(n);
    mix.dy = rows(dy, dy.sizes(), "mix_backward: dy");
    for (size_t j = 0; j < n; ++j) {
        if (wants_dc[j]) mix.sources[j] = rows(sources[j], dy.sizes(), "mix_backward: source");
        mix.dsources[j] = rows(dsources[j], dy.sizes(), "mix_backward: dsource");
        mix.accumulate[j] = accumulate[j] != 0;
    }
    mix.coefficients = floats(coefficients, mix.count, "mix_backward: coefficients");
    mix.dcoefficients = floats(dcoefficients, mix.count, "mix_backward: dcoefficients");
    const at::Tensor sums = partials(dy, mix.count);
    mix.partials = sums.data_ptr<float>();
    kernels_.mix_backward(mix, shape_of(dy), stream_);
}

void Fused::rms_norm(const at::Tensor& x, double eps, const at::Tensor& y, const at::Tensor& rstd) const {
    kernels_.rms_norm(rows(x, x.sizes(), "rms_norm: x"), static_cast<float>(eps),
                      rows(y, x.sizes(), "rms_norm: y"), floats(rstd, x.size(0), "rms_norm: rstd"),
                      shape_of(x), stream_);
}

void Fused::rms_norm_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd,
                              const at::Tensor& dx, bool accumulate) const {
    kernels_.rms_norm_backward(
        rows(dy, x.sizes(), "rms_norm_backward: dy"), rows(x, x.sizes(), "rms_norm_backward: x"),
        floats(rstd, x.size(0), "rms_norm_backward: rstd"), rows(dx, x.sizes(), "rms_norm_backward: dx"),
        accumulate, shape_of(x), stream_);
}

void Fused::relu2(const at::Tensor& x, const at::Tensor& y) const {
    kernels_.relu2(rows(x, x.sizes(), "relu2: x"), rows(y, x.sizes(), "relu2: y"), shape_of(x), stream_);
}

void Fused::relu2_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& dx) const {
    kernels_.relu2_backward(rows(dy, x.sizes(), "relu2_backward: dy"),
                            rows(x, x.sizes(), "relu2_backward: x"),
                            rows(dx, x.sizes(), "relu2_backward: dx"), shape_of(x), stream_);
}

void Fused::qk_norm_rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, double eps,
                           const at::Tensor& y, const at::Tensor& rstd) const {
    const raw::Rotary rotary = rotary_of(x, cos, sin);
    kernels_.qk_norm_rotary(rows(x, x.sizes(), "qk_norm_rotary: x"), rotary, static_cast<float>(eps),
                            rows(y, x.sizes(), "qk_norm_rotary: y"),
                            floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary: rstd"), shape_of(x),
                            stream_);
}

void Fused::qk_norm_rotary_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& cos,
                                    const at::Tensor& sin, const at::Tensor& rstd,
                                    const at::Tensor& dx) const {
    const raw::Rotary rotary = rotary_of(x, cos, sin);
    kernels_.qk_norm_rotary_backward(
        rows(dy, x.sizes(), "qk_norm_rotary_backward: dy"), rows(x, x.sizes(), "qk_norm_rotary_backward: x"),
        rotary, floats(rstd, x.size(0) * x.size(1), "qk_norm_rotary_backward: rstd"),
        rows(dx, x.sizes(), "qk_norm_rotary_backward: dx"), shape_of(x), stream_);
}

void Fused::head_gate(const at::Tensor& y, const at::Tensor& x, const at::Tensor& w, const at::Tensor& out,
                      const at::Tensor& gate) const {
    kernels_.head_gate(rows(y, y.sizes(), "head_gate: y"), gate_of(y, x, w),
                       rows(out, y.sizes(), "head_gate: out"),
                       floats(gate, y.size(0) * y.size(1), "head_gate: gate"), shape_of(y), stream_);
}

void Fused::head_gate_backward(const at::Tensor& dout, const at::Tensor& y, const at::Tensor& x,
                               const at::Tensor& w, const at::Tensor& gate, const at::Tensor& dy,
                               const at::Tensor& dx, const at::Tensor& dw) const {
    const raw::HeadGate numbers = gate_of(y, x, w);
    const at::Tensor sums = partials(y, w.numel());
    kernels_.head_gate_backward(
        rows(dout, y.sizes(), "head_gate_backward: dout"), rows(y, y.sizes(), "head_gate_backward: y"),
        numbers, floats(gate, y.size(0) * y.size(1), "head_gate_backward: gate"),
        rows(dy, y.sizes(), "head_gate_backward: dy"), rows(dx, x.sizes(), "head_gate_backward: dx"),
        flat(dw, w.numel(), "head_gate_backward: dw"), sums.data_ptr<float>(), shape_of(y), stream_);
}

void Fused::smear(const at::Tensor& e, const at::Tensor& w, const at::Tensor& lambda, const at::Tensor& out,
                  const at::Tensor& gate) const {
    kernels_.smear(rows(e, e.sizes(), "smear: e"), smear_of(e, w, lambda), rows(out, e.sizes(), "smear: out"),
                   floats(gate, e.size(0), "smear: gate"), shape_of(e), stream_);
}

void Fused::smear_backward(const at::Tensor& dout, const at::Tensor& e, const at::Tensor& w,
                           const at::Tensor& lambda, const at::Tensor& gate, const at::Tensor& de,
                           const at::Tensor& dw, const at::Tensor& dlambda) const {
    const raw::Smear numbers = smear_of(e, w, lambda);
    const at::Tensor sums = partials(e, w.numel() + 1);
    kernels_.smear_backward(
        rows(dout, e.sizes(), "smear_backward: dout"), rows(e, e.sizes(), "smear_backward: e"), numbers,
        floats(gate, e.size(0), "smear_backward: gate"), rows(de, e.sizes(), "smear_backward: de"),
        flat(dw, w.numel(), "smear_backward: dw"), floats(dlambda, 1, "smear_backward: dlambda"),
        sums.data_ptr<float>(), shape_of(e), stream_);
}

void Fused::embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out) const {
    check(table.dim() == 2 && out.dim() == 2 && table.size(1) == out.size(1),
          "embedding: table is [V, d], out [T, d]");
    kernels_.embedding(rows(table, table.sizes(), "embedding: table"), token_ids(ids, out.size(0)),
                       rows(out, out.sizes(), "embedding: out"), shape_of(out), stream_);
}

void Fused::embedding_backward(const at::Tensor& dout, const at::Tensor& ids,
                               const at::Tensor& dtable) const {
    check(dtable.dim() == 2 && dout.dim() == 2 && dtable.size(1) == dout.size(1),
          "embedding_backward: dtable is [V, d], dout [T, d]");
    const auto [sorted, order] = at::sort(ids, /*stable=*/true, 0, /*descending=*/false);
    const int64_t chunks = (dout.size(0) + raw::kEmbeddingChunk - 1) / raw::kEmbeddingChunk;
    const at::Tensor sums = at::empty({chunks, 2, dout.size(1)}, dout.options().dtype(at::kFloat));
    kernels_.embedding_backward(rows(dout, dout.sizes(), "embedding_backward: dout"),
                                token_ids(sorted, dout.size(0)), order.const_data_ptr<int64_t>(),
                                rows(dtable, dtable.sizes(), "embedding_backward: dtable"),
                                sums.data_ptr<float>(), shape_of(dout), stream_);
}

Fused::AttentionLayout Fused::attention_layout(const at::Tensor& cu_seqlens,
                                               std::span<const int64_t> strides) const {
    check(cu_seqlens.dim() == 1 && cu_seqlens.size(0) > 0 && cu_seqlens.scalar_type() == at::kInt &&
              cu_seqlens.is_contiguous(),
          "attention_layout: cu_seqlens are not int32 [n + 1]");
    check(strides.size() <= static_cast<size_t>(raw::kMostLayouts), "attention_layout: takes 9 tensors");
    const int64_t documents = cu_seqlens.size(0) - 1, count = std::ssize(strides);
    AttentionLayout result{at::empty({documents}, cu_seqlens.options()),
                           at::empty({count, documents + 1}, cu_seqlens.options().dtype(at::kLong))};
    raw::AttentionLayout layout{.count = static_cast<int>(count),
                                .lengths = result.lengths.data_ptr<int32_t>(),
                                .offsets = result.offsets.data_ptr<int64_t>()};
    std::ranges::copy(strides, layout.strides);
    kernels_.attention_layout(cu_seqlens.const_data_ptr<int32_t>(), documents, layout, stream_);
    return result;
}

void Fused::softcap_loss(const at::Tensor& logits, const at::Tensor& targets, const Softcap& softcap,
                         double grad_scale, const at::Tensor& loss_per_token,
                         const at::Tensor& gradient) const {
    raw::SoftcapLoss loss = softcap_loss_of(logits, targets, softcap, grad_scale, loss_per_token);
    loss.gradient = rows(gradient, logits.sizes(), "softcap_loss: gradient");
    kernels_.softcap_loss(loss, shape_of(logits), stream_);
}

Fused::Quantized Fused::softcap_loss_fp8(const at::Tensor& logits, const at::Tensor& targets,
                                         const Softcap& softcap, double grad_scale,
                                         const at::Tensor& loss_per_token, double fp8_scale) const {
    const at::Tensor whole = at::empty(logits.sizes(), logits.options().dtype(at::kFloat8_e5m2));
    raw::SoftcapLoss loss = softcap_loss_of(logits, targets, softcap, grad_scale, loss_per_token);
    loss.gradient_fp8 = bytes_of(whole);
    loss.fp8_scale = static_cast<float>(fp8_scale);
    kernels_.softcap_loss(loss, shape_of(logits), stream_);
    return with_transpose(whole);
}

Fused::Quantized Fused::quantize(const at::Tensor& x, double scale, at::ScalarType dtype) const {
    check(x.dim() == 2 && (dtype == at::kFloat8_e4m3fn || dtype == at::kFloat8_e5m2),
          "quantize: x is [T, d], dtype one of 8 bits");
    const at::Tensor whole = at::empty(x.sizes(), x.options().dtype(dtype));
    kernels_.quantize(rows(x, x.sizes(), "quantize: x"), static_cast<float>(scale),
                      dtype == at::kFloat8_e4m3fn ? raw::Fp8::e4m3 : raw::Fp8::e5m2, bytes_of(whole),
                      shape_of(x), stream_);
    return with_transpose(whole);
}

Fused::Quantized Fused::with_transpose(at::Tensor whole) const {
    check(whole.size(0) % 16 == 0 && whole.size(1) % 16 == 0,
          "8-bit floats [" + std::to_string(whole.size(0)) + ", " + std::to_string(whole.size(1)) +
              "]: cuBLASLt multiplies multiples of 16");
    const at::Tensor transposed = at::empty({whole.size(1), whole.size(0)}, whole.options());
    kernels_.transpose_bytes(bytes_of(whole), bytes_of(transposed), shape_of(whole), stream_);
    return {std::move(whole), transposed};
}

void Fused::adam_update(const at::Tensor& value, const at::Tensor& grad, const at::Tensor& exp_avg,
                        const at::Tensor& exp_avg_sq, const at::Tensor& copy,
                        const raw::Adam& numbers) const {
    const int64_t count = value.numel();
    raw::Adam adam = numbers;
    adam.value = flat(value, count, "adam_update: value");
    adam.grad = flat(grad, count, "adam_update: grad");
    adam.exp_avg = flat(exp_avg, count, "adam_update: exp_avg");
    adam.exp_avg_sq = flat(exp_avg_sq, count, "adam_update: exp_avg_sq");
    adam.copy = flat(copy, count, "adam_update: copy");
    check(adam.value.type == adam.grad.type && adam.exp_avg.type == adam.exp_avg_sq.type,
          "adam_update: dtypes that do not agree");
    kernels_.adam(adam, count, stream_);
}

void Fused::gram(const at::Tensor& x, const at::Tensor& c, double alpha, double beta,
                 const at::Tensor& addend) const {
    check(x.dim() == 3 && takes_gram(x), "gram: x is not bf16 [n, rows, cols] of multiples of 8");
    const int64_t count = x.size(0), rows = x.size(1), elements = count * rows * rows;
    const auto address = [&](const at::Tensor& square, const char* what) {
        const raw::Flat found = flat(square, elements, what);
        check(found.type == raw::Scalar::bf16 && reinterpret_cast<uintptr_t>(found.data) % 16 == 0,
              std::string(what) + ": not bf16, or not aligned");
        return found.data;
    };
    raw::Gram gram;
    gram.x = x.const_data_ptr();
    gram.c = address(c, "gram: c");
    if (beta != 0) gram.addend = address(addend, "gram: addend");
    gram.alpha = static_cast<float>(alpha);
    gram.beta = static_cast<float>(beta);
    kernels_.gram(gram, count, {rows, x.size(2)}, stream_);
}

void Fused::momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update,
                            const raw::Number& mu, bool lerp, bool nesterov) const {
    const int64_t count = grad.numel();
    check(grad.scalar_type() == momentum.scalar_type(),
          "momentum_update: gradient and momentum of one dtype");
    kernels_.momentum(flat(grad, count, "momentum_update: grad"),
                      flat(momentum, count, "momentum_update: momentum"),
                      flat(update, count, "momentum_update: update"), mu, lerp, nesterov, count, stream_);
}

void Fused::matrix_update(const at::Tensor& update, const at::Tensor& factors,
                          const at::Tensor& second_moment, const at::Tensor& value, const at::Tensor& copy,
                          const raw::MatrixUpdate& numbers) const {
    check(update.dim() == 3 && value.sizes() == update.sizes(),
          "matrix_update: update and value are [n, rows, cols]");
    const int64_t count = update.size(0), rows = update.size(1), cols = update.size(2);
    raw::MatrixUpdate step = numbers;
    step.update = flat(update, update.numel(), "matrix_update: update");
    step.value = flat(value, value.numel(), "matrix_update: value");
    step.copy = flat(copy, value.numel(), "matrix_update: copy");
    step.factors = floats(factors, count, "matrix_update: factors");
    const int64_t moments = count * (numbers.of_rows ? rows : cols);
    step.second_moment = flat(second_moment, moments, "matrix_update: second_moment");
    at::Tensor sums;
    if (second_moment.defined()) sums = at::empty({moments}, update.options().dtype(at::kFloat));
    step.sums = floats(sums, moments, "matrix_update: sums");
    kernels_.matrix_update(step, count, rows, cols, stream_);
}

bool fused(const at::Tensor& x) {
    return x.is_cuda() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

bool takes_gram(const at::Tensor& x) {
    return x.scalar_type() == at::kBFloat16 && x.is_contiguous() && x.size(-1) % 8 == 0 &&
           x.size(-2) % 8 == 0 && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

Fused on_device_of(const at::Tensor& x) {
    static const raw::Kernels& kernels = load_kernels();
    return {kernels, c10::impl::VirtualGuardImpl(at::kCUDA).getStream(x.device()).native_handle()};
}

const raw::GraphTable& graph_table() {
    const auto find = reinterpret_cast<decltype(&speedrun_cuda_graphs)>(
        module_symbol(kModule, "speedrun_cuda_graphs", kNeeds));
    return *find();
}

std::shared_ptr<raw::Graphs> make_graphs() {
    return graph_table().make();
}

const raw::CudnnAttention& cudnn_attention() {
    const auto find = reinterpret_cast<decltype(&speedrun_cudnn_attention)>(
        module_symbol(kModule, "speedrun_cudnn_attention", kNeeds));
    const raw::CudnnAttention* const found = find();
    if (!found)
        throw UserError(std::string(kModule) +
                        " was built without cuDNN's attention: the build did not find cuDNN's headers or its "
                        "frontend (scripts/bootstrap installs the latter)");
    return *found;
}

bool have_driver() {
    return ::dlopen("libcuda.so.1", RTLD_LAZY) != nullptr;
}

bool have_backend() {
    return have_module(kModule);
}

void load_backend() {
    load_kernels();
}

}  // namespace speedrun::ops::cuda

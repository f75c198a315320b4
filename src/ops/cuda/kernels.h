#pragma once
// The fused kernels for NVIDIA GPUs, as functions on addresses: no type of torch's and none of CUDA's appears
// here, so that nvcc compiles the kernels quickly and callers need no toolkit. What each computes, with its
// formula's source, is in the header of its op (ops/mix.h and so on); here stands what the op's header leaves
// open. All addresses are of the device; everything runs on `stream` without waiting for it. Sums over rows
// are formed in one order, whatever the GPU: results are the same bits each time. A launch that CUDA refuses
// throws std::runtime_error. A new kernel is a member of Kernels and a .cu file that registers itself there.
#include <cstdint>

namespace speedrun::cuda {

using Stream = void*;  // cudaStream_t

enum class Scalar : int32_t { f32, bf16 };

// Rows of a matrix: row t begins `stride` elements after row t - 1; elements of a row follow each other.
struct Rows {
    void* data = nullptr;
    int64_t stride = 0;
    Scalar type = Scalar::f32;
};

// A vector or a contiguous matrix of either type.
struct Flat {
    void* data = nullptr;
    Scalar type = Scalar::f32;
};

struct Shape {
    int64_t rows = 0, cols = 0;
};

// A number that may be another one each time a captured launch (graph.h) runs: that at `place`, in memory of
// the device, or where there is none `value`.
struct Number {
    Number(double number = 0, const double* where = nullptr) : value(number), place(where) {}
    double value;
    const double* place;
};

// Sums over rows are formed by this many blocks at most, each over rows of its own; callers of functions that
// take `partials` give them room for this many sets of fp32 numbers.
inline constexpr int64_t kPartialSets = 1024;

inline constexpr int kMostSources = 8;

// Of a mix's source: fp32 numbers [T, columns], each for cols / columns channels; data null: none.
struct Factor {
    const float* data = nullptr;
    float* gradient = nullptr;  // added to, at the same strides; null: not wanted
    int64_t stride = 0;         // from token to token
    int32_t columns = 1;
    float offset = 0;
};

// ops::mix_norm; `normed.data` null: ops::mix.
struct Mix {
    Rows sources[kMostSources];
    Factor factors[kMostSources];
    int count = 0;
    const float* coefficients = nullptr;
    Rows y, normed;
    float* rstd = nullptr;
    float eps = 0;
};

// ops::mix_backward. A source or gradient whose data is null is not read or written. partials: kPartialSets *
// count.
struct MixBackward {
    Rows dy;
    Rows sources[kMostSources];   // null where no gradient of a coefficient or factor is wanted
    Rows dsources[kMostSources];  // null where no gradient is wanted
    Factor factors[kMostSources];
    bool accumulate[kMostSources] = {};
    bool wants_coefficient[kMostSources] = {};
    int count = 0;
    const float* coefficients = nullptr;
    float* dcoefficients = nullptr;  // may be null where none is wanted
    float* partials = nullptr;       // the same
};

// ops::qk_norm_rotary and its backward: rows are tokens, of `heads` heads of shape.cols / heads numbers.
struct Rotary {
    Rows cos, sin;  // [T', D / 2]
    int64_t heads = 0;
    bool pairs = false;   // a pair is two neighbours; else it has one number in each half of the head
    bool paired = false;  // head h of token t stands at position 2t + h % 2
};

// ops::key_offset: channels [begin, end) of every head of head_dim; what is not needed is empty.
inline constexpr int kMostOffsetChannels = 2;
struct KeyOffset {
    int64_t head_dim = 0;
    int64_t begin[kMostOffsetChannels] = {}, end[kMostOffsetChannels] = {};
};

// ops::gate and its backward: the first channels of `inputs`, one after the other. At most 32 outputs, and
// outputs * channels <= kMostGateWeights. partials: kPartialSets * outputs * channels.
inline constexpr int64_t kMostGateWeights = 512;
inline constexpr int kMostGateInputs = 2;
enum class Activation : int32_t { identity, sigmoid, tanh };
struct Gate {
    Rows inputs[kMostGateInputs], dinputs[kMostGateInputs];  // dinputs: of the backward, added to
    int64_t channels[kMostGateInputs] = {};
    int inputs_count = 0;
    Flat w;  // [outputs, channels]
    int64_t outputs = 0;
    Activation activation = Activation::identity;
    int64_t total_channels() const { return channels[0] + channels[1]; }
};

// ops::coef_net and its backward, of kNetHidden hidden numbers and at most kMostNetOutputs outputs.
// partials: kPartialSets * (outputs * (kNetHidden + 1) + 1).
inline constexpr int64_t kNetHidden = 64;
inline constexpr int kMostNetOutputs = 44;
struct CoefNet {
    Flat h, dh;                    // [T, hidden]; dh: of the backward, written
    Flat w, b, dw, db;             // [outputs, hidden] and [outputs]; dw, db: of the backward, added to
    const float* scale = nullptr;  // one number
    Flat dscale;                   // added to; null: not wanted
    int64_t outputs = 0;
};

// Of ops::xsa and its backward: [heads], or [T, heads] of fp32 with `stride` elements from token to token.
struct XsaAlpha {
    Flat numbers;
    int64_t stride = 0;  // 0: the same for every token
};

// ops::xsa_backward: rows are tokens, of `heads` heads, 32 at most. partials: kPartialSets * heads, where
// alpha is the same for every token.
struct XsaBackward {
    Rows dy, x, v, dx, dv;
    XsaAlpha alpha, dalpha;
    int64_t heads = 0;
};

// ops::dynamic_composition: rows are tokens, of `heads` heads of shape.cols / heads numbers; of w1 and w2
// `heads` fp32 numbers. At most kMostComposedKeys keys a query.
inline constexpr int64_t kMostComposedKeys = 512;
struct Composition {
    Rows q, k, v, w1, w2;
    const int32_t* cu_seqlens = nullptr;  // [documents + 1], the last one shape.rows
    int64_t documents = 0;
    int64_t heads = 0, window = 1;
    float scale = 1;
};
struct CompositionGrads {
    Rows dout, dq, dk, dv, dw1, dw2;
    bool accumulate = false;
    float* scratch = nullptr;  // [3, tokens, heads]
};

// ops::smear and its backward. partials: kPartialSets.
struct Smear {
    const float* lambda = nullptr;
    const float* factor = nullptr;  // [T]; null: 1
};

// Tokens of one id are added up by chunks of this many.
inline constexpr int64_t kEmbeddingChunk = 32;

// Of documents that begin at cu_seqlens [documents + 1]: how many tokens each has, and for each of `count`
// tensors, `strides` elements from token to token, the element at which each begins.
inline constexpr int kMostLayouts = 9;
struct AttentionLayout {
    int64_t strides[kMostLayouts] = {};
    int count = 0;
    int32_t* lengths = nullptr;  // [documents]
    int64_t* offsets = nullptr;  // [count, documents + 1]
};

// One row of logits [T, V] each: the soft cap, the cross-entropy and, where gradient.data is not null,
// grad_scale times the gradient with respect to the logits, which may be written over them; ops/head_loss.h.
inline constexpr int kMostTargets = 4;
struct SoftcapLoss {
    Rows logits;
    // Token t's targets are targets[t], targets[t + 1] ... as far as there are targets_left, with weights[0],
    // weights[1] ...; weights null: one, of 1. keep_normaliser: ops::Targets::Tail.
    const int64_t* targets = nullptr;
    int64_t targets_left = 0;
    const float* weights = nullptr;
    int weight_count = 1;
    bool keep_normaliser = false;
    // One more target of token t is prefix_of[targets[t]], where that is not -1, with this weight; null: none
    // has one.
    const int64_t* prefix_of = nullptr;
    const float* prefix_weight = nullptr;
    // ops::Softcap: its numbers, form, height() and slope().
    float a = 0, b = 0, c = 1;
    bool rsqrt = false;
    float height = 0, slope = 0;
    float* loss = nullptr;
    Rows gradient;
    float grad_scale = 1;
    // Instead of `gradient`: what quantize() makes of it in bf16, [T, V] of e5m2 bytes.
    uint8_t* gradient_fp8 = nullptr;
    float fp8_scale = 1;
};

enum class Fp8 : int32_t { e4m3, e5m2 };
enum class QuantizeOrder : int32_t { times, over_inverse, divided, divided_in_dtype };  // ops::Fp8Order
// The largest absolute numbers of a matrix's rows, one for each warp of the launch that finds them, of which
// there are this many at most; NaN where it has met one.
inline constexpr int64_t kMostMaxima = kPartialSets * 4;
// What is made of the maxima of a matrix of that shape, in fp32; what is null is not wanted. amax: their
// largest, at least 1e-12.
struct Fp8Scale {
    const float* maxima = nullptr;
    float* now = nullptr;  // [3]: 448 / amax, *weight_scale * amax / 448, 1
    const float* weight_scale = nullptr;
    float* exact = nullptr;  // amax / 448 in exact_type's arithmetic
    Scalar exact_type = Scalar::bf16;
    float* delayed = nullptr;  // amax * headroom, where that is finite
    float headroom = 1;
    float* replaced = nullptr;  // what was at `delayed` before
};

// A step of an expression in postfix order; ops/scalar_program.h.
struct ScalarInstruction {
    enum class Operation : int32_t { number, element, add, multiply, sigmoid, tanh };
    Operation operation = Operation::number;
    float number = 0;     // number
    int32_t element = 0;  // element
    int32_t left = 0;     // add, multiply: the instruction of the first operand; the second is the one before
    bool round_to_bf16 = false;  // element: as the reference uses it
};
struct ScalarElement {
    const void* value = nullptr;
    void* grad = nullptr;
    Scalar type = Scalar::f32;
};
struct ScalarProgram {
    const ScalarInstruction* instructions = nullptr;
    const int32_t* starts = nullptr;  // [expressions + 1]
    const ScalarElement* elements = nullptr;
    const int32_t *uses = nullptr, *uses_begin = nullptr;
    int64_t expressions = 0, element_count = 0;
    float* contributions = nullptr;  // one an instruction
};
inline constexpr int kMostScalarInstructions = 32;  // of an expression

// ops::batched_gram of `count` bf16 matrices x [rows, cols], one after the other: tiles of c on and above the
// diagonal are computed, and those below it written with them. rows and cols are multiples of 8, all
// addresses of 16 bytes.
struct Gram {
    const void* x = nullptr;
    const void* addend = nullptr;  // may be null
    void* c = nullptr;             // neither of the two
    float alpha = 1, beta = 0;
};

// ops::adam_update on `count` elements.
struct Adam {
    enum class Decay : int32_t { decoupled, cautious, cautious_strict };
    Flat value, grad;          // of one type
    Flat exp_avg, exp_avg_sq;  // of one type
    Flat copy;                 // the compute copy, written too where its data is not null
    float beta1 = 0, beta2 = 0;
    Number eps = 0, step_size = 0, decay = 0;
    Decay decay_kind = Decay::decoupled;
};

// ops::matrix_update on `count` matrices [rows, cols], one after the other; what stands there of every number
// holds here.
struct MatrixUpdate {
    enum class Scale : int32_t { none, restore_norm, paper };
    enum class Decay : int32_t { none, decoupled, cautious };
    Flat update, value, copy;        // copy: may be null
    Flat second_moment;              // null: none
    const float* factors = nullptr;  // [count], or null
    const float* lr_muls = nullptr;  // [count], or null
    uint16_t* mantissa = nullptr;    // lower halves of fp32 numbers, value their upper ones; or null
    float* sums = nullptr;           // room for a number for each row, or column, that has a second moment
    bool of_rows = false;            // a second moment a row (var_reduce_dim -1), else one a column
    Number lr = 0, decay = 0, correction = 1;
    float beta2 = 0, eps = 0, factor = 1;
    bool eps_added = false;  // to the root; otherwise what is below eps counts as eps
    Scale scale = Scale::none;
    Decay decay_kind = Decay::none;
};

// The kernels by name. The module libspeedrun_cuda.so has one table, and the tests' emulation on a CPU
// another.
struct Kernels {
    void (*mix)(const Mix& mix, Shape shape, Stream stream);
    void (*mix_backward)(const MixBackward& mix, Shape shape, Stream stream);
    void (*rms_norm)(Rows x, float eps, Rows y, float* rstd, Shape shape, Stream stream);
    void (*rms_norm_backward)(Rows dy, Rows x, const float* rstd, Rows dx, bool accumulate, Shape shape,
                              Stream stream);
    void (*relu2)(Rows x, Rows y, Shape shape, Stream stream);
    void (*relu2_backward)(Rows dy, Rows x, Rows dx, Shape shape, Stream stream);
    void (*relu2_backward_of_output)(Rows dy, Rows y, Rows dx, Shape shape, Stream stream);
    void (*qk_norm_rotary)(Rows x, const Rotary& rotary, float eps, Rows y, float* rstd, Shape shape,
                           Stream stream);
    void (*qk_norm_rotary_backward)(Rows dy, Rows x, const Rotary& rotary, const float* rstd, Rows dx,
                                    Shape shape, Stream stream);
    void (*key_offset)(Rows x, const KeyOffset& offset, Rows y, Shape shape, Stream stream);
    void (*key_offset_backward)(Rows dy, const KeyOffset& offset, Rows dx, Shape shape, Stream stream);
    // values: fp32 [expressions].
    void (*scalar_program)(const ScalarProgram& program, float* values, Stream stream);
    void (*scalar_program_backward)(const ScalarProgram& program, const float* grads, Stream stream);
    // values and their gradients are fp32 [tokens, outputs].
    void (*gate)(const Gate& gate, float* values, int64_t tokens, Stream stream);
    void (*gate_backward)(const Gate& gate, const float* values, const float* dvalues, Flat dw,
                          float* partials, int64_t tokens, Stream stream);
    // values and their gradients are fp32 [tokens, outputs].
    void (*coef_net)(const CoefNet& net, float* values, int64_t tokens, Stream stream);
    void (*coef_net_backward)(const CoefNet& net, const float* dvalues, float* partials, int64_t tokens,
                              Stream stream);
    void (*xsa)(Rows x, Rows v, XsaAlpha alpha, Rows y, int64_t heads, Shape shape, Stream stream);
    void (*xsa_backward)(const XsaBackward& xsa, float* partials, Shape shape, Stream stream);
    void (*dynamic_composition)(const Composition& in, Rows y, Rows out, Shape shape, Stream stream);
    void (*dynamic_composition_backward)(const Composition& in, const CompositionGrads& grads, Shape shape,
                                         Stream stream);
    void (*smear)(Rows e, const Smear& smear, Rows out, Shape shape, Stream stream);
    // dfactor: null where smear.factor is.
    void (*smear_backward)(Rows dout, Rows e, const Smear& smear, Rows de, float* dfactor, float* dlambda,
                           float* partials, Shape shape, Stream stream);
    // to[t] = from[t] * table[ids[t]], element by element.
    void (*multiply_rows)(Rows from, Rows table, const int32_t* ids, Rows to, Shape shape, Stream stream);
    // shape is that of out.
    void (*embedding)(Rows table, const int32_t* ids, Rows out, Shape shape, Stream stream);
    // `sorted` are the ids in ascending order, `order` where each was, those of one id ascending. partials: 2
    // * shape.cols for each kEmbeddingChunk tokens, of which the last may be few.
    void (*embedding_backward)(Rows dout, const int32_t* sorted, const int64_t* order, Rows dtable,
                               float* partials, Shape shape, Stream stream);
    void (*attention_layout)(const int32_t* cu_seqlens, int64_t documents, const AttentionLayout& layout,
                             Stream stream);
    void (*softcap_loss)(const SoftcapLoss& loss, Shape shape, Stream stream);
    // to[t][i] = from[t][i] / scale, rounded to nearest even, the format's largest number where it is larger;
    // `to` is a contiguous [T, d] of bytes.
    void (*quantize)(Rows from, float scale, Fp8 format, uint8_t* to, Shape shape, Stream stream);
    // ops::fp8_quantize to e4m3: by the number at `scale`; `to` as above. Where `maxima` is not null, those
    // of `from` too.
    void (*quantize_scaled)(Rows from, const float* scale, QuantizeOrder order, uint8_t* to, float* maxima,
                            Shape shape, Stream stream);
    // relu2, and quantize_scaled of y by over_inverse, in one pass. y may be x.
    void (*relu2_quantized)(Rows x, Rows y, const float* scale, uint8_t* to, float* maxima, Shape shape,
                            Stream stream);
    void (*fp8_maxima)(Rows x, float* maxima, Shape shape, Stream stream);
    void (*fp8_scale)(const Fp8Scale& scale, Shape shape, Stream stream);
    // The transpose [cols, rows] of a matrix of bytes; rows and cols are multiples of 16, addresses of 16
    // bytes.
    void (*transpose_bytes)(const uint8_t* from, uint8_t* to, Shape shape, Stream stream);
    // Of the current device, such as 90. FP8 products need 89.
    int (*compute_capability)();
    void (*gram)(const Gram& gram, int64_t count, Shape shape, Stream stream);
    void (*adam)(const Adam& adam, int64_t count, Stream stream);
    // ops::momentum_update on `count` elements; `lerp` or accumulating.
    void (*momentum)(Flat grad, Flat momentum, Flat update, Number mu, bool lerp, bool nesterov,
                     int64_t count, Stream stream);
    void (*matrix_update)(const MatrixUpdate& update, int64_t count, int64_t rows, int64_t cols,
                          Stream stream);
};

}  // namespace speedrun::cuda

// What the module is loaded for; never null.
extern "C" const speedrun::cuda::Kernels* speedrun_cuda_kernels();

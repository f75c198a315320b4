#pragma once
// The section "model": every parameter, and how tokens become logits, layer by layer.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "config/coefficient.h"

namespace speedrun {

enum class Dtype { fp32, bf16 };

struct Init {
    enum class Kind { zeros, constant, normal, uniform } kind = Kind::zeros;
    // constant: the value; normal, uniform: the standard deviation (uniform: bound = sqrt(3) std)
    double value = 0;
    bool operator==(const Init&) const = default;
};

// A named part of a scalar parameter: elements [at, at + prod(shape)).
struct Slice {
    std::string name;
    int64_t at = 0;
    std::vector<int64_t> shape;
    std::vector<double> init;  // repeated over the slice
};

// A parameter is declared once. `shape` is the bank's: one contiguous tensor. A per-layer parameter has one
// entry of dimension 0 for each of `layers`; entries after those belong to no layer.
struct ParamConfig {
    std::string name;
    std::vector<int64_t> shape;
    Dtype dtype = Dtype::fp32;
    std::vector<int64_t> layers;  // empty: not a per-layer parameter
    std::vector<Init> init;       // one for the whole, or one for each index of dimension 1 (q, k, v, o)
    std::vector<Slice> slices;    // of scalar parameters; empty otherwise
    std::string state_dict;       // the reference's name; {i}: layer, {k}: index in dimension 0; "" = `name`
    // Shape of one entry there; empty: the bank's own (one entry's, if per layer).
    std::vector<int64_t> state_dict_shape;
};

// One term of x <- sum_j c_j * s_j. Sources: "x", "x0", "attn_out", "mlp_out", "v", "ve.K", or a cached layer
// output.
struct MixTerm {
    Coefficient coefficient;
    std::string source;
    bool operator==(const MixTerm&) const = default;
};

enum class Window { short_window, long_window };

struct AttentionConfig {
    WeightRef q, k, v, o;  // each [d_model, d_model], stored [out, in]
    Window window = Window::short_window;
    std::vector<MixTerm> v_terms;         // sources "v" and "ve.K"; empty: v unchanged
    std::optional<Coefficient> out_gate;  // multiplies each head's output; gates may read "a", the input
};

// How a matrix is stored: rows are inputs, or rows are outputs.
enum class MatrixLayout { in_out, out_in };

// relu(x fc)^2 proj
struct MlpConfig {
    WeightRef fc, proj;
    MatrixLayout fc_layout = MatrixLayout::in_out, proj_layout = MatrixLayout::out_in;
};

struct LayerConfig {
    int64_t index = 0;
    bool skip_layer = false;                                         // does nothing at all
    std::vector<MixTerm> entry, before_attn, after_attn, after_mlp;  // empty: x unchanged
    std::optional<AttentionConfig> attn;
    std::optional<MlpConfig> mlp;
    std::string cache;  // name under which the layer's output can be a source; "" = none
};

struct ModelConfig {
    int64_t vocab_size = 0, d_model = 0, n_head = 0, head_dim = 0, n_layer = 0, mlp_hidden = 0;
    double norm_eps = 1.1920928955078125e-07;
    struct Rope {
        double theta = 1024;
        int64_t rotary_dims = 0;  // dims that turn; the rest of the frequencies are zero
        Dtype table_dtype = Dtype::bf16;
        double yarn_alpha = 1, yarn_beta = 32, softmax_scale_init = 0.1, softmax_scale_log_coef = 0.2;
    } rope;
    std::vector<ParamConfig> params;  // in declaration order
    struct Input {
        std::string token;         // embedding table [vocab_size, d_model]
        std::string value_embeds;  // bank [n, vocab, dim] behind "ve.K"; "" = none
        // e_t += smear * e_(t-1); gates may read "e", the embedding
        std::optional<Coefficient> smear;
    } input;
    std::vector<LayerConfig> layers;  // n_layer of them
    struct Output {
        std::vector<MixTerm> mix;
        std::string head;                                       // [vocab_size, d_model]
        double softcap_a = 30, softcap_b = 0, softcap_c = 7.5;  // A * sigmoid((z + B) / C)
    } output;

    const ParamConfig& param(const std::string& name) const;  // InternalError if there is none
};

}  // namespace speedrun

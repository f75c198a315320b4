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
    enum class Kind { zeros, constant, normal, uniform, random_sign } kind = Kind::zeros;
    // constant: the value; normal, uniform: the standard deviation (uniform: bound = sqrt(3) std)
    // random_sign: each element is 1 or -1
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

// A parameter is declared once. `shape` is the bank's: one contiguous tensor. A per-layer parameter has
// entries_per_layer entries of dimension 0 for each of `layers`; entries after those belong to no layer.
struct ParamConfig {
    std::string name;
    std::vector<int64_t> shape;
    Dtype dtype = Dtype::fp32;
    // What the optimizer updates: the value itself, or for bf16 an fp32 number whose upper half it is, cut
    // off and not rounded; the lower half is the optimizer's state "mantissa" (record 57).
    enum class Master { value, mantissa } master = Master::value;
    // Elements count as bf16 in coefficients where activations are (record 73); the parameter itself is fp32.
    bool round_in_use = false;
    std::vector<int64_t> layers;    // empty: not a per-layer parameter
    int64_t entries_per_layer = 1;  // of dimension 0
    std::vector<Init> init;         // one for the whole, or one for each index of dimension 1 (q, k, v, o)
    std::vector<Slice> slices;      // of scalar parameters; empty otherwise
    // The reference's name; {i}: layer, {k}: index in dimension 0; "" = `name`. Without either, of the whole
    // bank.
    std::string state_dict;
    // Shape of one entry there; empty: the bank's own (one entry's, if per layer).
    std::vector<int64_t> state_dict_shape;
    bool state_dict_transposed = false;  // the reference stores the transpose of a matrix

    // Whether each entry of dimension 0 has a name of its own there.
    bool named_by_entry() const { return state_dict.find('{') != std::string::npos; }
};

// One term of x <- sum_j c_j * s_j. Sources: "x", "lane1", "x0", "x0_bigram", "attn_out", "mlp_out", "v",
// "ve.K", or what a layer has cached.
struct MixTerm {
    Coefficient coefficient;
    std::string source;
    bool operator==(const MixTerm&) const = default;
};

enum class Window { short_window, long_window };

// Channels [begin, end) of every head.
struct HeadChannels {
    int64_t begin = 0, end = 0;
    bool operator==(const HeadChannels&) const = default;
};

// A net that makes coefficients for each token (MUDD, record 81): (gelu(u w1^T) w2^T + b2) scale, u a source
// where the net is evaluated.
struct CoefNet {
    std::string name;
    int64_t entry_of_layer =
        -1;                // where: on entering this layer (of 0: before input.init); -1: after the last
    std::string input;     // u; "" = x
    WeightRef w1, w2, b2;  // [hidden, d_model], [outputs, hidden], [outputs]
    Coefficient scale;     // of numbers and elements alone; trainable from record 85 on

    int64_t hidden() const { return w2.shape.size() == 2 ? w2.shape[1] : 0; }
    int64_t outputs() const { return w2.shape.size() == 2 ? w2.shape[0] : 0; }
};

// One attention map for all heads, composed of theirs for each token, whose output is added to each head's
// (DC, record 85): y_h + w2_h sum_g u_g P_g v_h, P_g the softmax of head g, u being w1 normed over the heads.
struct DynamicComposition {
    static constexpr int64_t longest_window = 512;  // that kernels hold
    int64_t window = 1;                             // keys a query sees at most, itself included
    std::optional<Coefficient> w1, w2;              // outputs of nets, one a head
};

struct AttentionConfig {
    // paired: the heads j and j + n_head / 2 are one of twice as many positions, 2t and 2t + 1 (record 58).
    enum class Kind { causal, paired } kind = Kind::causal;
    std::string input;  // the source whose norm it reads (record 77); "" = x
    WeightRef
        norm_gain;  // [d_model], multiplies that norm (track 3); like each of the biases it may be absent
    WeightRef q, k, v, o;                      // each [d_model, d_model], stored [out, in]
    WeightRef q_bias, k_bias, v_bias, o_bias;  // each [d_model]
    Window window = Window::short_window;
    std::vector<HeadChannels> key_offset;  // of keys, which come from the token before; ascending
    std::vector<MixTerm> v_terms;          // sources "v", "ve.K" and those of x; empty: v unchanged
    std::optional<DynamicComposition> dc;  // comes before xsa
    // A number for each head, elements of a parameter or (record 85) outputs of a net: tanh of it says how
    // much of what is parallel to a head's own value is taken out of its output (record 82); none: nothing.
    std::optional<Coefficient> xsa;
    std::optional<Coefficient> out_gate;  // multiplies each head's output; gates may read "a", the input
};

// How a matrix is stored: rows are inputs, or rows are outputs.
enum class MatrixLayout { in_out, out_in };

// relu(norm(input) fc + fc_bias)^2 proj + proj_bias
struct MlpConfig {
    std::string input;    // a source (record 73: the second lane); "" = x
    WeightRef norm_gain;  // [d_model], multiplies the norm; like each of the biases it may be absent
    WeightRef fc, proj;
    WeightRef fc_bias, proj_bias;  // [mlp_hidden], [d_model]
    MatrixLayout fc_layout = MatrixLayout::in_out, proj_layout = MatrixLayout::out_in;
};

// The second stream of records 73 to 76, the source "lane1" from the first layer on that has it. Its mixes
// read what x was before x's own mix of the same place. Empty: unchanged.
struct LaneConfig {
    std::vector<MixTerm> entry, after_attn, after_mlp;
};

struct LayerConfig {
    int64_t index = 0;
    bool skip_layer = false;                                         // does nothing at all
    std::vector<MixTerm> entry, before_attn, after_attn, after_mlp;  // empty: x unchanged
    std::optional<AttentionConfig> attn;
    std::optional<MlpConfig> mlp;
    std::optional<LaneConfig> lane1;
    // Names under which x can be a source, as it is on entering, between attention and MLP, and at the end;
    // "" = none.
    std::string cache_entry, cache_after_attn, cache;
};

// row_t = (mul_cur tok_t xor mul_prev tok_(t-1)) mod (rows - 1) in int32 arithmetic that wraps, never
// negative; row_0 = rows - 1 (record 62).
struct Bigram {
    // [rows, dims]; they are the first of d_model channels, of which the others are zero.
    std::string table;
    int64_t mul_cur = 0, mul_prev = 0;
    // What row_1 takes for the token before: row_0, or (records 68 to 70) the token.
    enum class PreviousOfRow1 { row_0, token } previous_of_row_1 = PreviousOfRow1::row_0;
    // A table [sign rows, dims] that multiplies the rows element by element, by the row (tok_(t-1) xor tok_t)
    // mod sign rows, and 0 for the first (record 83); "" = none.
    std::string signs = {};
};

struct ModelConfig {
    int64_t vocab_size = 0, d_model = 0, n_head = 0, head_dim = 0, n_layer = 0, mlp_hidden = 0;
    double norm_eps = 1.1920928955078125e-07;
    struct Rope {
        double theta = 1024;
        int64_t rotary_dims = 0;  // dims that turn; the rest of the frequencies are zero
        // Which channels turn together: one of each half of the head, or two neighbours (record 58).
        enum class Layout { halves, pairs } layout = Layout::halves;
        Dtype table_dtype = Dtype::bf16;
        double yarn_alpha = 1, yarn_beta = 32, softmax_scale_init = 0.1, softmax_scale_log_coef = 0.2;
    } rope;
    std::vector<ParamConfig> params;  // in declaration order
    struct Input {
        std::string token;         // embedding table [vocab_size, d_model]
        std::string tied_to;       // read instead of it until schedule.untie_after_step; "" = never tied
        std::string value_embeds;  // bank [n, vocab, dim] behind "ve.K"; "" = none
        // Rows of a table by hashes of a token and the one before, behind "x0_bigram"; none: no such source.
        std::optional<Bigram> bigram;
        // e_t += smear * e_(t-1); gates may read "e", the embedding
        std::optional<Coefficient> smear;
        WeightRef norm_gain;        // [d_model], multiplies the norm of the embedding; absent: nothing does
        std::vector<MixTerm> init;  // x before the first layer (record 73); empty: x0
    } input;
    std::vector<CoefNet> coef_nets;
    std::vector<LayerConfig> layers;  // n_layer of them
    struct Output {
        std::vector<MixTerm> mix;
        WeightRef norm_gain;  // [d_model], multiplies the norm of the last hidden state; absent: nothing does
        std::string head;     // [vocab_size, d_model]
        WeightRef head_bias;  // [vocab_size]; absent: none
        struct Softcap {
            enum class Form {
                sigmoid,  // A sigmoid((z + B) / C)
                rsqrt     // A z / sqrt(z^2 + A^2) (track 3)
            } form = Form::sigmoid;
            double a = 30, b = 0, c = 7.5;
        } softcap;
    } output;

    const ParamConfig& param(const std::string& name) const;  // InternalError if there is none
};

}  // namespace speedrun

#pragma once
// One run, as one strict JSON file says it. Every struct here is a section of that file; every name is the
// JSON key. Values are resolved: symbolic dimensions are numbers, layer_defaults are merged into each layer,
// `i` is substituted.
#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/matrix_config.h"
#include "config/model_config.h"

namespace speedrun {

// ---- data
// ------------------------------------------------------------------------------------------------------

struct DataConfig {
    std::string train;       // glob of training shards; relative paths are relative to the working directory
    std::string val;         // glob of validation shards
    int64_t val_tokens = 0;  // tokens a validation reads; a multiple of val_micro_batch_tokens
    // Rows of a step's batch, whatever its tokens: a row is one micro-batch, packed by itself. Ranks share
    // them.
    int64_t rows = 0;
    int64_t val_micro_batch_tokens = 0;  // T of a validation micro-batch
    int64_t vocab_size = 0;  // token ids are < vocab_size (50257; the model's table is padded to 50304)
    int64_t bos_id = 0;
    // Rows are cut from the stream of tokens in sequences of so many, wherever documents begin (track 3); 0:
    // they are made of documents.
    int64_t sequence_tokens = 0;
    // Where the byte strings of the tokens below bos_id come from, for the prefixes of
    // schedule.stages[].prefix: data/prefix_table.h. Relative paths are relative to the working directory.
    std::string prefix_table;  // empty: no token has a prefix
    // cu_seqlens has multiple * ceil((T / divisor) / multiple) entries, padded with T (record 43: 300, 128);
    // micro-batches of some sizes have a number of their own (record 78).
    struct MaxNumDocs {
        int64_t divisor = 300, multiple = 128;
        struct Size {
            int64_t tokens = 0, entries = 0;
        };
        std::vector<Size> sizes;
        int64_t entries(int64_t tokens) const;
    } max_num_docs;
    // Of the cu_seqlens of a micro-batch of so many tokens: as max_num_docs says, or one for each sequence
    // and one for the end.
    int64_t cu_seqlens_entries(int64_t tokens) const;
};

// ---- objective, numerics
// ---------------------------------------------------------------------------------------

struct ObjectiveConfig {
    // Gradients are the sum over the step's tokens / grad_divisor. When the division happens:
    enum class Accumulation {
        sum_then_divide,  // once, after accumulation (default)
        divide_then_sum,  // each micro-batch's loss before backward (record 43 as merged)
        sum,  // never on one rank, as record 42: micro-batches are summed, only ranks are averaged
    } accumulation = Accumulation::sum_then_divide;
    double grad_divisor = 8;
    // Of targets beyond the end of a row, where a stage has several a token (schedule.stages[].mtp): the
    // softmax of the gradient goes without their weight, or (record 79) keeps it.
    enum class MtpTail { drop, keep_normaliser } mtp_tail = MtpTail::drop;
};

struct NumericsConfig {
    Dtype activations = Dtype::bf16;
    // "declared": each parameter and its gradient in its declared dtype; "fp32": all of them fp32.
    enum class Params { declared, fp32 } params = Params::declared;
    struct Head {
        enum class Format { activations, fp8 } format = Format::activations;  // fp8 needs a GPU that has it
        double x_scale = 1, w_scale = 1, grad_scale = 1;
    } lm_head;
    // Products of the MLPs in training, forward; backward has the activations' dtype. fp8: e4m3, one scale a
    // matrix. A device that does not multiply 8-bit floats rounds to them all the same.
    struct Mlp {
        enum class Format { activations, fp8 };
        struct Up {
            Format format = Format::activations;  // fp8 (record 84): scaled by the amax of the moment
        } up;
        struct Down {
            // fp8 (record 89): the scales come from the amax that activations had in the pass before and
            // weights in the step before, each times its headroom.
            Format format = Format::activations;
            double act_headroom = 1.80, weight_headroom = 1.12;
            int64_t exact_weight_steps = 16;  // before this step weights are scaled by their own amax
        } down;
        // Of pre and post = relu(pre)^2, what backward reads: both, or post alone, whose root it takes
        // (record 87).
        enum class Saved { pre_and_post, post } save_for_backward = Saved::pre_and_post;
    } mlp;
};

// ---- optimizer
// -------------------------------------------------------------------------------------------------

struct AdamConfig {
    double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
    // decoupled: p *= 1 - c; cautious (record 50): the update takes c p only where it moves p towards zero;
    // cautious_strict (record 53): not where one of the two is zero
    enum class Decay { decoupled, cautious, cautious_strict } decay = Decay::decoupled;
    // c = weight_decay * wd_mul times
    enum class DecayCoefficient {
        lr,         // lr * lr_mul, as the schedule has it
        lr_squared  // the square of that
    } decay_coefficient = DecayCoefficient::lr;
    // Parameters of fewer than 2 dimensions keep fp32 state, as the reference's do.
    enum class StateDtype { fp32, bf16, parameter } state_dtype = StateDtype::fp32;  // parameter: its own
    enum class EpsForm {
        raw,       // sqrt(v) + eps
        corrected  // sqrt(v / (1 - beta2^t)) + eps, as torch.optim.AdamW has it
    } eps_form = EpsForm::raw;
    int64_t every_n_steps = 1;  // steps when step % n == n - 1; gradients in between add up
};

// One row of the optimizer's table.
struct OptimParamConfig {
    std::string param;
    enum class Rule {
        adam,
        matrix,
        none  // a buffer: it keeps its values (record 83's signs)
    } rule = Rule::adam;
    enum class Comm {
        sharded,        // each rank updates its share of the units, from a reduce_scatter, and all_gathers it
        replicated,     // each rank updates all of them, from an all_reduce (record 52: of fewer than 1024
                        // elements)
        sharded_sparse  // sharded, but that ranks send each other the gradients of those rows that they have
                        // looked up (record 71: of the table of model.input.bigram)
    } comm = Comm::sharded;
    double lr_mul = 1, wd_mul = 1;
    std::optional<std::array<double, 2>> betas;  // adam: instead of optimizer.adam.betas
    bool bias_correction = true;                 // adam: of both moments
    std::array<int64_t, 3> matrix_view{};        // matrix: [matrices, rows, cols] of the bank
    std::vector<double> per_matrix_lr_mul;       // matrix: multiply lr_mul, in turn; empty: all 1
    // matrix: whether each has optimizer.matrix.direction, in turn: "off", "on", or "gated", as far as its
    // gate lets it; empty: all "on"
    std::vector<std::string> per_matrix_direction;
    std::vector<double> per_matrix_norm_mul;  // matrix: multiply row_norms.target, in turn; empty: all 1
    // matrix: dimension the second moment averages over, -1 (one number a row) or -2 (a column); 0, until the
    // config is resolved: as optimizer.matrix.second_moment says
    int64_t var_reduce_dim = 0;
};

// How ranks exchange gradients and parameters. A bucket is what one reduce-scatter and one all-gather carry:
// a parameter, or ranges of dimension 0 of several that follow each other, as "attn_qkvo+mlp_fc[0:6]".
struct CommConfig {
    enum class Launch {
        at_step,       // reductions start when backward is done
        on_grad_ready  // each as soon as backward has finished the bucket's gradients (record 44's hooks)
    } launch = Launch::at_step;
    std::vector<std::string> scatter_order;  // every parameter in one bucket; empty: one a parameter, in the
                                             // model's order
    std::vector<std::string> work_order;     // the same buckets as they are updated; empty: scatter_order
};

// EMA-Nesterov around every rule (track 3, results 39 to 46): b is a running average of each step's whole
// change of a parameter, the lookahead's own included. Before the forward of a step in [from, until) the
// parameter moves by beta b, beta times what the schedule says for adam in the step before.
struct LookaheadConfig {
    double beta = 0, ema = 0.99;  // ema: of b
    int64_t from = 0, until = 0;  // steps
};

// A running average of the weights after each step in [from, until), which begins with the first of them:
// ema += (p - ema) / tau. Validations from then on read (1 - weight) p + weight ema (track 3, result 46).
struct TailEmaConfig {
    double tau = 1, weight = 0;
    int64_t from = 0, until = 0;       // steps, counted from 1
    std::vector<std::string> without;  // parameters that have no average
};

struct OptimizerConfig {
    AdamConfig adam;
    MatrixConfig matrix;
    std::optional<LookaheadConfig> lookahead;
    std::optional<TailEmaConfig> tail_ema;
    CommConfig comm;
    std::vector<OptimParamConfig> params;  // one for every model parameter, in the model's order
};

// ---- schedule, runtime
// -----------------------------------------------------------------------------------------

inline constexpr size_t most_mtp_targets = 4;

// Multi-token prediction (record 53): token t is trained on tokens t + 1, t + 2, ..., with weights that go
// linearly from `from` at step `begin` to `to` at step `end`, which need not be whole.
struct Mtp {
    std::vector<double> from, to;  // one weight a target, the first above 0
    double begin = 0, end = 0;
};

// Prefix-token loss (record 88): token t is trained on the prefix of token t + 1 too, where that has one,
// with a weight that goes as Mtp's do.
struct PrefixLoss {
    double from = 0, to = 0;
    double begin = 0, end = 0;
    bool weighs() const { return from > 0 || to > 0; }
};

struct Stage {
    int64_t start = 0;                          // first step
    int64_t batch_tokens = 0;                   // a multiple of data.rows
    int64_t max_seq_len = 0;                    // documents are cut here
    int64_t window_short = 0, window_long = 0;  // in blocks of block_size tokens
    std::optional<Mtp> mtp;                     // none: the next token alone
    std::optional<PrefixLoss> prefix;           // none: no weight
};

// Stages of the learning rate have starts of their own: some records change it at other steps than batches.
struct LrStage {
    int64_t start = 0;  // first step
    double mul = 1;     // what the schedule falls from
};

// What multiplies learning rates, step by step.
struct LrSchedule {
    // scale = mul until cooldown; then mul * w + floor * (1 - w), w being the power `exponent` (track 3's
    // PowerCool: 1.2) of what falls from 1 to 0 in the last cooldown_frac of scheduled_steps, or (record
    // 65) from step cooldown_start on
    double cooldown_frac = 0, floor = 0, clamp_x = 0.9999, exponent = 1;
    int64_t cooldown_start = -1;  // -1: cooldown_frac says it
    std::vector<LrStage> stages;  // ascending, the first at 0; empty: mul is 1
};

struct ScheduleConfig {
    // A run whose extension_steps are below 0 ends before its schedule does.
    int64_t scheduled_steps = 0, extension_steps = 0, block_size = 0;
    LrSchedule lr;
    std::optional<LrSchedule> matrix_lr;  // of matrices; none: as lr
    std::vector<Stage> stages;
    // Where model.input.tied_to names a table: the step after which model.input.token, with its optimizer
    // state, becomes a copy of it, and is what later steps look up (record 53).
    int64_t untie_after_step = -1;  // -1: none
    // Parameters that are left alone, their gradients forgotten, in the `steps` steps from every change of
    // the batch or the long window on (record 52).
    struct Freeze {
        std::vector<std::string> params;
        int64_t steps = 0;
    } freeze;
    struct Eval {
        int64_t every = 0;  // steps; 0: only at the end
        // From this part of scheduled_steps on, every late_every steps instead (track 3).
        double late_from = 1;
        int64_t late_every = 0;         // 0: as before
        int64_t final_long_window = 0;  // blocks, in the last validation, without a YaRN step
    } eval;
    int64_t total_steps() const { return scheduled_steps + extension_steps; }
};

struct RuntimeConfig {
    enum class Device { automatic, cpu, cuda } device = Device::automatic;
    // Of a GPU: ATen's flash attention, with the same bits each time; the same with dq summed by atomic
    // additions; or cuDNN's, which does that too.
    enum class Attention { flash, flash_atomic, cudnn } attention = Attention::flash;
    int64_t threads = 0;       // 0: the cores this process may use
    int64_t warmup_steps = 0;  // untimed steps before the clock starts, all effects undone
    uint64_t seed = 0;         // of the initial weights, through torch's CPU generator
    // A collective that some rank has been in for longer, or a rank silent for longer, ends a run of several.
    double collective_deadline_s = 300;
    // A step whose loss or gradients are not finite, on any rank, never reaches the weights. Then:
    enum class NonFinite {
        stop,  // the run ends
        skip   // it goes on without that step's gradients
    } non_finite = NonFinite::stop;
    // On a GPU: passes and updates are recorded in the warm-up and then launched by one call each. Results
    // are the same.
    bool cuda_graphs = true;
    bool memory_check = true;  // refuse to start a run that needs more memory than is free
    struct Checkpoint {
        int64_t every_steps = 0;   // 0: not by steps
        double every_minutes = 0;  // 0: not by time
        int64_t keep_last = 2;     // older ones are removed
        bool keep_best = true;     // but not the one with the lowest validation loss
    } checkpoint;
};

// A validated run.
struct Config {
    int64_t record = 0;  // number of the record this run repeats; 0 = none
    DataConfig data;
    ModelConfig model;
    ObjectiveConfig objective;
    NumericsConfig numerics;
    OptimizerConfig optimizer;
    ScheduleConfig schedule;
    RuntimeConfig runtime;
    std::string resolved_json;  // canonical text of the whole resolved config (what `config show` prints)
    std::string hash;           // sha-256 of resolved_json, hex
};

// Lines "path: a -> b" for every leaf in which two configs differ, sorted by path; empty if they agree.
std::string config_diff(const Config& a, const Config& b);

}  // namespace speedrun

#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "config/schedule.h"
#include "model/graph/completions.h"
#include "model/parameters.h"
#include "model/step_probe.h"
#include "ops/capture.h"
#include "ops/step_numbers.h"
#include "optim/ownership.h"
#include "optim/row_exchange.h"
#include "optim/rule.h"

namespace speedrun {

// A piece of the optimizer's state on this rank, sharing its memory: copy_ into `tensor` restores it.
struct NamedTensor {
    std::string name;
    at::Tensor tensor;
    int64_t begin = 0;    // its first element's index in the tensor of all ranks, flattened
    bool shared = false;  // the same on every rank
};

// A piece of state as it is on all ranks together.
struct GlobalTensor {
    std::string name;
    at::ScalarType dtype;
    std::vector<int64_t> shape;
};

// What the sum of gradients over a step's micro-batches and ranks is multiplied by before it is used.
double gradient_scale(const ObjectiveConfig& objective, int64_t world_size);

// All update rules of a run over a table, sharded: each rank holds the state of what it owns, receives the
// sum of its gradients, updates it, and sends the result to the others. Table and communicator must outlive
// it.
class Optimizer {
  public:
    Optimizer(const Config& config, ParameterTable& table, Communicator& communicator);

    // What was captured before is forgotten; from now on updates that allow it (UpdateRule::step_numbers) are
    // captured, and launched from their third time on. Null: nothing is. Collectives never are: a watchdog
    // looks for the end of each.
    void capture_with(std::shared_ptr<cuda::Graphs> graphs);

    // Whether gradients of this parameter go by rows (comm sharded_sparse), so that look_up() must be told.
    bool sends_rows(const std::string& param) const;
    // Before begin(): rows of such a parameter that this rank's micro-batches of the step look up.
    void look_up(const std::string& param, std::span<const int32_t> rows);
    // Gradients have been loaded, whose rows look_up() was not told.
    void find_pending_rows();

    // Whether grad_ready() starts anything: the config says on_grad_ready, and there is another rank.
    bool reduces_early() const { return on_grad_ready_; }
    // Before the forward that leads to a step's last gradients: ranks tell each other how many rows they
    // will send. From then until step(), grad_ready() may start reductions.
    void begin(const StepSettings& settings);
    // The gradient of these elements is complete. Where the config says on_grad_ready, buckets that are
    // complete by it are on their way afterwards.
    void grad_ready(const ElementRange& part);

    // NaN or infinite where a gradient of this rank is, those whose reduction has started included: fp64,
    // 0-dim, on the device, so that asking does not wait for it. Between the last backward and step() or
    // skip().
    at::Tensor gradient_sum();
    // Before a step's forward: values run ahead by settings.lookahead of their average step, where the config
    // has optimizer.lookahead. All ranks call it.
    void run_ahead(const StepSettings& settings);
    // Around a validation with optimizer.tail_ema: what forward reads becomes (1 - weight) value + weight
    // average, and is the value again after restore_values(). All ranks call both.
    void read_average(double weight);
    void restore_values();

    // Instead of step(), after gradients that are not finite on some rank: forgets them, Adam's sums too, and
    // how far values ran ahead. All ranks call it.
    void skip();

    // From each rank's gradients, summed over its micro-batches: reduces, scales and updates, matrices every
    // time, Adam's when settings.adam_steps, but for those that rest, and gathers. Gradients that were used
    // are zero afterwards; Adam's stay, to be added to, when it does not step. What forward reads is up to
    // date on every rank; masters only on their owner. `probe` is told when it updates and when it
    // communicates.
    void step(const StepSettings& settings, StepProbe* probe = nullptr);

    // Brings the masters of every parameter up to date on this rank. All ranks call it.
    void gather_values();

    // Forgets everything: the state is that of a new optimizer.
    void reset();

    // This rank's share: "attn_qkvo.momentum", "attn_qkvo.second_moment", "embed.exp_avg",
    // "embed.exp_avg_sq", ... in the order of the buckets, and for each parameter "embed.step", int64 [1]:
    // its steps so far. A parameter of several buckets appears once for each, with another `begin`.
    std::vector<NamedTensor> state() const;
    int64_t state_bytes() const;
    // What the ranks' state() make up together, whatever their number, in the order of the parameters.
    std::vector<GlobalTensor> global_state() const;
    // The masters this rank owns, under the parameters' names.
    std::vector<NamedTensor> owned_values() const;

  private:
    struct Shard {  // a piece this rank owns: views of its values, gradients and copies, and its rule
        Piece piece;
        Parameter part;
        OptimParamConfig::Rule kind;
        std::unique_ptr<UpdateRule> rule;
        int64_t numbers_at = 0,
                number_count = 0;  // its step_numbers() among numbers_, where steps are captured
        at::Tensor kept =
            {};  // between read_average() and restore_values(): the value, where it was replaced
    };
    struct BucketState {
        Bucket bucket;
        at::Tensor value, grad, used;  // 1-D, all of the bucket
        std::vector<int64_t> counts;
        std::vector<Shard> shards;
        int64_t elements_missing = 0;       // whose gradients are not complete yet
        bool launches = false;              // this step: whether it may be reduced before step()
        std::unique_ptr<RowExchange> rows;  // instead of `reduction`; null: gradients go as a whole
        Handle reduction, gathering;
        bool capturable = false;
        ops::Capture capture;  // of its shards' updates
    };

    BucketState make_bucket(const Config& config, const Bucket& bucket);
    void count_step(const StepSettings& settings);
    RowExchange* rows_of(const std::string& param) const;
    void reduce(BucketState& bucket);
    void finish_reduction(BucketState& bucket);
    void gather_used();
    RuleStep rule_step(const Shard& shard, const StepSettings& settings) const;
    void bring_numbers(const StepSettings& settings);
    void update(BucketState& bucket, const StepSettings& settings);
    void update(BucketState& bucket, std::vector<RuleStep> steps);
    void follow_tied_table();
    void untie();
    const Shard* only_shard(const std::string& param) const;
    at::Tensor sum_of_gradients() const;

    OptimizerConfig config_;
    ParameterTable& table_;
    Communicator& communicator_;
    bool on_grad_ready_;
    double scale_;
    std::vector<BucketState> buckets_;  // in scatter order
    std::vector<size_t> work_order_;
    std::map<std::string, at::Tensor> step_counts_;  // of each parameter
    struct {
        std::string table, source;
    } tie_;                   // of model.input
    bool launching_ = false;  // between begin() and step()
    at::Tensor started_sum_;  // of the gradients whose reduction has started; undefined: of none
    std::shared_ptr<cuda::Graphs> graphs_;  // null: nothing is captured
    std::optional<ops::StepNumbers> numbers_;
    ops::Capture sum_capture_;
    at::Tensor captured_sum_;
};

}  // namespace speedrun

#include "optim/optimizer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "util/error.h"

namespace speedrun {
namespace {

using Rule = OptimParamConfig::Rule;

// `pieces` of `which` (value, grad or used) as one 1-D tensor; they follow each other in memory.
at::Tensor whole(ParameterTable& table, const Bucket& bucket, at::Tensor Parameter::*which) {
    const Piece& first = bucket.pieces.front();
    const at::Tensor& tensor = table[first.param].*which;
    const int64_t start = tensor.storage_offset() + first.begin * bucket.unit_elements;
    int64_t next = start;
    for (const Piece& piece : bucket.pieces) {
        const at::Tensor& part = table[piece.param].*which;
        check(part.is_alias_of(tensor) && part.storage_offset() + piece.begin * bucket.unit_elements == next,
              bucket.name + ": its parts do not follow each other in memory");
        next += (piece.end - piece.begin) * bucket.unit_elements;
    }
    return tensor.as_strided({next - start}, {1}, start);
}

// Units [begin, end) of a tensor; a matrix bank keeps its shape but for dimension 0, a table becomes rows.
at::Tensor units(const at::Tensor& tensor, const Piece& piece, Rule rule) {
    const bool rows = rule != Rule::matrix && tensor.dim() >= 2;
    return (rows ? tensor.view({-1, tensor.size(-1)}) : tensor)
        .narrow(0, piece.begin, piece.end - piece.begin);
}

Parameter part_of(const Parameter& parameter, const Piece& piece, Rule rule) {
    Parameter part{
        parameter.config, units(parameter.value, piece, rule), units(parameter.grad, piece, rule), {}};
    const bool copied = !parameter.used.is_same(parameter.value);
    part.used = copied ? units(parameter.used, piece, rule) : part.value;
    return part;
}

OptimParamConfig row_of_part(const Config& config, const ParamConfig& param, const Piece& piece) {
    OptimParamConfig row = *std::ranges::find(config.optimizer.params, param.name, &OptimParamConfig::param);
    row.matrix_view[0] = row.matrix_view[0] / param.shape[0] * (piece.end - piece.begin);
    return row;
}

// Adds the sum of x to `sum` in one pass that reads: NaN or infinite where a term is; finite terms of
// gradients do not reach its range. On a CPU ATen widens bf16 into a copy first: of a whole table that would
// be the largest temporary of a step.
void add_sum(at::Tensor& sum, const at::Tensor& x) {
    const int64_t part = x.is_cpu() ? int64_t{1} << 20 : std::max<int64_t>(1, x.numel());
    for (const at::Tensor& y : x.split(part)) {
        const at::Tensor of_part = at::sum(y, at::kFloat).to(at::kDouble);
        sum = sum.defined() ? sum + of_part : of_part;
    }
}

}  // namespace

double gradient_scale(const ObjectiveConfig& objective, int64_t world_size) {
    switch (objective.accumulation) {
        case ObjectiveConfig::Accumulation::sum_then_divide:
            return 1 / objective.grad_divisor;
        case ObjectiveConfig::Accumulation::divide_then_sum:
            return 1;
        case ObjectiveConfig::Accumulation::sum:
            return 1 / static_cast<double>(world_size);
    }
    throw InternalError("no such accumulation");
}

Optimizer::Optimizer(const Config& config, ParameterTable& table, Communicator& communicator)
    : config_(config.optimizer),
      table_(table),
      communicator_(communicator),
      on_grad_ready_(config.optimizer.comm.launch == CommConfig::Launch::on_grad_ready &&
                     communicator.world_size() > 1),
      scale_(gradient_scale(config.objective, communicator.world_size())),
      tie_{config.model.input.token, config.model.input.tied_to} {
    for (const Parameter& parameter : table.all()) {
        const std::string& name = parameter.config.name;
        check(std::ranges::count(config.optimizer.params, name, &OptimParamConfig::param) == 1,
              name + " has no row, or two, in the optimizer's table");
        step_counts_[name] = at::zeros({1}, at::kLong);
    }
    Ownership plan = plan_ownership(config, communicator.world_size());
    for (const Bucket& bucket : plan.buckets) buckets_.push_back(make_bucket(config, bucket));
    work_order_ = std::move(plan.work_order);
}

Optimizer::BucketState Optimizer::make_bucket(const Config& config, const Bucket& bucket) {
    BucketState state{.bucket = bucket,
                      .value = whole(table_, bucket, &Parameter::value),
                      .grad = whole(table_, bucket, &Parameter::grad),
                      .used = whole(table_, bucket, &Parameter::used),
                      .counts = bucket.replicated ? std::vector<int64_t>{} : bucket.counts(),
                      .shards = {},
                      .rows = {},
                      .reduction = {},
                      .gathering = {},
                      .capture = {}};
    if (bucket.by_rows)
        state.rows = std::make_unique<RowExchange>(state.grad.view({-1, bucket.unit_elements}), bucket.units,
                                                   communicator_, bucket.name);
    for (const Piece& piece : bucket.owned_by(communicator_.rank())) {
        const Parameter& parameter = table_[piece.param];
        const Parameter part = part_of(parameter, piece, bucket.rule);
        const OptimParamConfig row = row_of_part(config, parameter.config, piece);
        state.shards.push_back({piece, part, bucket.rule, make_rule(config.optimizer, row, part)});
    }
    return state;
}

RowExchange* Optimizer::rows_of(const std::string& param) const {
    for (const BucketState& bucket : buckets_)
        if (bucket.rows && bucket.bucket.pieces.front().param == param) return bucket.rows.get();
    return nullptr;
}

bool Optimizer::sends_rows(const std::string& param) const {
    return rows_of(param) != nullptr;
}

void Optimizer::look_up(const std::string& param, std::span<const int32_t> rows) {
    RowExchange* const exchange = rows_of(param);
    check(exchange, param + ": its gradients do not go by rows");
    exchange->mark(rows);
}

void Optimizer::find_pending_rows() {
    for (BucketState& bucket : buckets_)
        if (bucket.rows) bucket.rows->mark_what_is_there();
}

void Optimizer::begin(const StepSettings& settings) {
    launching_ = true;
    started_sum_.reset();
    for (BucketState& bucket : buckets_) {
        bucket.elements_missing = bucket.grad.numel();
        const bool stepping = steps(bucket.bucket, settings);
        bucket.launches = stepping && !bucket.rows;
        if (stepping && bucket.rows) bucket.rows->begin();
    }
}

void Optimizer::grad_ready(const ElementRange& part) {
    if (!on_grad_ready_ || !launching_) return;
    for (BucketState& bucket : buckets_) {
        if (!bucket.launches) continue;
        const int64_t unit = bucket.bucket.unit_elements;
        int64_t completed = 0;
        for (const Piece& piece : bucket.bucket.pieces)
            if (piece.param == part.param)
                completed += std::max<int64_t>(
                    0, std::min(part.end, piece.end * unit) - std::max(part.begin, piece.begin * unit));
        bucket.elements_missing -= completed;
        if (completed == 0 || bucket.elements_missing > 0) continue;
        add_sum(started_sum_, bucket.grad);
        reduce(bucket);
    }
}

at::Tensor Optimizer::sum_of_gradients() const {
    at::Tensor sum = started_sum_;
    for (const BucketState& bucket : buckets_)
        if (!bucket.reduction) add_sum(sum, bucket.grad);
    return sum;
}

at::Tensor Optimizer::gradient_sum() {
    if (!graphs_ || started_sum_.defined()) return sum_of_gradients();
    sum_capture_.run([this] { captured_sum_ = sum_of_gradients(); }, *graphs_);
    return captured_sum_;
}

void Optimizer::capture_with(std::shared_ptr<cuda::Graphs> graphs) {
    graphs_ = std::move(graphs);
    numbers_.reset();
    if (graphs_) numbers_.emplace(buckets_.front().value.device());
    sum_capture_ = {};
    for (BucketState& bucket : buckets_) {
        bucket.capture = {};
        bucket.capturable = graphs_ && !bucket.shards.empty();
        if (!graphs_) continue;
        for (Shard& shard : bucket.shards) {
            shard.number_count = std::ssize(shard.rule->step_numbers({}));
            shard.numbers_at = numbers_->add(shard.number_count);
            bucket.capturable = bucket.capturable && shard.number_count > 0;
        }
    }
}

// All of them, also of rules that do not step now.
void Optimizer::bring_numbers(const StepSettings& settings) {
    if (!numbers_) return;
    std::vector<double> all;
    for (const BucketState& bucket : buckets_)
        for (const Shard& shard : bucket.shards)
            std::ranges::copy(shard.rule->step_numbers(rule_step(shard, settings)), std::back_inserter(all));
    numbers_->bring(all);
}

void Optimizer::skip() {
    launching_ = false;
    for (BucketState& bucket : buckets_) {
        if (bucket.reduction) bucket.reduction->wait();
        bucket.reduction.reset();
        if (bucket.rows) bucket.rows->clear();
        bucket.grad.zero_();
        for (Shard& shard : bucket.shards) shard.rule->turn_back(shard.part);
    }
    if (config_.lookahead) gather_used();
}

void Optimizer::reduce(BucketState& bucket) {
    if (bucket.rows) return bucket.rows->start();
    bucket.reduction = bucket.bucket.replicated
                           ? communicator_.all_reduce(bucket.grad, ReduceOp::sum, bucket.bucket.name)
                           : communicator_.reduce_scatter(bucket.grad, bucket.counts, bucket.bucket.name);
}

void Optimizer::finish_reduction(BucketState& bucket) {
    if (bucket.rows) return bucket.rows->finish();
    bucket.reduction->wait();
    bucket.reduction.reset();
}

// Reductions run beside the updates of buckets before theirs, gathers beside those of buckets after.
void Optimizer::step(const StepSettings& settings, StepProbe* probe) {
    enter(probe, StepPart::communication);
    launching_ = false;
    count_step(settings);
    bring_numbers(settings);
    for (BucketState& bucket : buckets_)
        if (steps(bucket.bucket, settings) && !bucket.reduction) reduce(bucket);
    for (const size_t index : work_order_) {
        BucketState& bucket = buckets_[index];
        if (!steps(bucket.bucket, settings)) continue;
        finish_reduction(bucket);
        enter(probe, StepPart::optimizer);
        update(bucket, settings);
        enter(probe, StepPart::communication);
        if (!bucket.bucket.replicated)
            bucket.gathering = communicator_.all_gather(bucket.used, bucket.counts, bucket.bucket.name);
    }
    for (const size_t index : work_order_) {
        BucketState& bucket = buckets_[index];
        if (!bucket.gathering) continue;
        if (communicator_.world_size() > 1) bucket.grad.zero_();
        bucket.gathering->wait();
        bucket.gathering.reset();
    }
    for (const std::string& param : settings.resting) {
        table_[param].grad.zero_();
        if (RowExchange* const rows = rows_of(param)) rows->clear();
    }
    if (settings.tied && settings.adam_steps) follow_tied_table();
    if (settings.unties) untie();
    if (table_.fp8().empty()) return;
    enter(probe, StepPart::optimizer);
    table_.refresh_fp8(settings.step);
}

void Optimizer::run_ahead(const StepSettings& settings) {
    if (!config_.lookahead) return;
    for (BucketState& bucket : buckets_)
        for (Shard& shard : bucket.shards) shard.rule->run_ahead(shard.part, rule_step(shard, settings));
    if (settings.lookahead != 0) gather_used();
}

void Optimizer::read_average(double weight) {
    for (BucketState& bucket : buckets_)
        for (Shard& shard : bucket.shards) {
            const at::Tensor average = shard.rule->averaged(shard.part, weight);
            if (!average.defined()) continue;
            if (shard.part.used.is_same(shard.part.value)) shard.kept = shard.part.value.clone();
            shard.part.used.copy_(average);
        }
    gather_used();
}

void Optimizer::restore_values() {
    for (BucketState& bucket : buckets_)
        for (Shard& shard : bucket.shards) {
            shard.part.used.copy_(shard.kept.defined() ? shard.kept : shard.part.value);
            shard.kept.reset();
        }
    gather_used();
}

// What forward reads, from the ranks that own it.
void Optimizer::gather_used() {
    for (BucketState& bucket : buckets_)
        if (!bucket.bucket.replicated)
            communicator_.all_gather(bucket.used, bucket.counts, bucket.bucket.name)->wait();
}

// A parameter of several buckets steps once.
void Optimizer::count_step(const StepSettings& settings) {
    std::set<std::string> stepping;
    for (const BucketState& bucket : buckets_)
        if (steps(bucket.bucket, settings))
            for (const Piece& piece : bucket.bucket.pieces) stepping.insert(piece.param);
    for (const std::string& param : stepping) step_counts_.at(param).add_(1);
}

// Nothing reads the table that is tied; it has the other's values so that weights are whole whenever they are
// saved.
void Optimizer::follow_tied_table() {
    const Parameter &from = table_[tie_.source], &to = table_[tie_.table];
    to.value.copy_(from.value);
    if (!to.used.is_same(to.value)) to.used.copy_(from.used);
}

// The table that was tied becomes a copy of the one that was read for it: values, and on each rank, which
// owns the same rows of both, moments and the count of steps.
void Optimizer::untie() {
    follow_tied_table();
    step_counts_.at(tie_.table).copy_(step_counts_.at(tie_.source));
    const Shard* const source = only_shard(tie_.source);
    const Shard* const table = only_shard(tie_.table);
    check((source == nullptr) == (table == nullptr), "tied tables with other owners");
    if (!source) return;
    const auto moments = source->rule->state(), copies = table->rule->state();
    for (size_t i = 0; i < moments.size(); ++i) copies[i].tensor.copy_(moments[i].tensor);
}

// What this rank owns of a parameter that is alone in one bucket; null: nothing.
const Optimizer::Shard* Optimizer::only_shard(const std::string& param) const {
    const auto found = std::ranges::find_if(
        buckets_, [&](const BucketState& bucket) { return bucket.bucket.pieces.front().param == param; });
    check(found != buckets_.end() && found->bucket.pieces.size() == 1 && found->shards.size() <= 1,
          param + " is not alone in one bucket");
    return found->shards.empty() ? nullptr : &found->shards.front();
}

RuleStep Optimizer::rule_step(const Shard& shard, const StepSettings& settings) const {
    const auto steps = step_counts_.at(shard.piece.param).item<int64_t>();
    return {.lr_scale = shard.kind == Rule::matrix ? settings.matrix_lr_scale : settings.lr_scale,
            .momentum = settings.muon_momentum,
            .t = std::max<int64_t>(1, steps),
            .run_step = settings.step,
            .lookahead = settings.lookahead,
            .averages = settings.averages,
            .restarts_average = settings.restarts_average};
}

void Optimizer::update(BucketState& bucket, const StepSettings& settings) {
    std::vector<RuleStep> steps;
    for (const Shard& shard : bucket.shards) steps.push_back(rule_step(shard, settings));
    if (graphs_ && bucket.capturable)
        bucket.capture.run([this, &bucket, steps] { update(bucket, steps); }, *graphs_);
    else
        update(bucket, steps);
}

void Optimizer::update(BucketState& bucket, std::vector<RuleStep> steps) {
    for (size_t i = 0; i < bucket.shards.size(); ++i) {
        Shard& shard = bucket.shards[i];
        if (scale_ != 1) shard.part.grad.mul_(scale_);
        if (bucket.capturable) steps[i].on_device = numbers_->part(shard.numbers_at, shard.number_count);
        shard.rule->step(shard.part, steps[i]);
    }
}

void Optimizer::gather_values() {
    for (BucketState& bucket : buckets_) {
        const bool copied = !bucket.used.is_alias_of(bucket.value);
        if (copied && !bucket.bucket.replicated)
            communicator_.all_gather(bucket.value, bucket.counts, bucket.bucket.name + " masters")->wait();
    }
}

void Optimizer::reset() {
    for (const NamedTensor& part : state()) part.tensor.zero_();
}

std::vector<NamedTensor> Optimizer::state() const {
    std::vector<NamedTensor> parts;
    for (const BucketState& bucket : buckets_)
        for (const Shard& shard : bucket.shards)
            for (const auto& [what, tensor] : shard.rule->state()) {
                const int64_t unit = tensor.numel() / (shard.piece.end - shard.piece.begin);
                parts.push_back({shard.piece.param + "." + what, tensor, shard.piece.begin * unit,
                                 bucket.bucket.replicated});
            }
    for (const OptimParamConfig& row : config_.params)
        parts.push_back({row.param + ".step", step_counts_.at(row.param), 0, true});
    return parts;
}

// The rules themselves say what state they would have for whole parameters; nothing is allocated on the meta
// device.
std::vector<GlobalTensor> Optimizer::global_state() const {
    std::vector<GlobalTensor> found;
    for (const OptimParamConfig& row : config_.params) {
        const Parameter& parameter = table_[row.param];
        const auto rule = make_meta_rule(config_, row, parameter.config, parameter.value.scalar_type());
        for (const auto& [what, tensor] : rule->state())
            found.push_back({row.param + "." + what, tensor.scalar_type(), tensor.sizes().vec()});
    }
    for (const OptimParamConfig& row : config_.params) found.push_back({row.param + ".step", at::kLong, {1}});
    return found;
}

std::vector<NamedTensor> Optimizer::owned_values() const {
    std::vector<NamedTensor> parts;
    for (const BucketState& bucket : buckets_)
        for (const Shard& shard : bucket.shards)
            parts.push_back({shard.piece.param, shard.part.value,
                             shard.piece.begin * bucket.bucket.unit_elements, bucket.bucket.replicated});
    return parts;
}

int64_t Optimizer::state_bytes() const {
    int64_t bytes = 0;
    for (const NamedTensor& part : state()) bytes += static_cast<int64_t>(part.tensor.nbytes());
    return bytes;
}

}  // namespace speedrun

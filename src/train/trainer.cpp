#include "train/trainer.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include "model/bigram_rows.h"
#include "ops/cuda/gpu.h"
#include "optim/diagnostics.h"
#include "plan/memory_check.h"
#include "plan/rank_memory.h"
#include "plan/traffic.h"
#include "util/diagnostics.h"
#include "util/error.h"

namespace speedrun {

namespace {

void sum_over_ranks(std::vector<double>& values, Communicator& communicator, std::string_view label) {
    const at::Tensor tensor =
        at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kDouble);
    communicator.all_reduce(tensor, ReduceOp::sum, label)->wait();
}

void wait_for(at::Device device) {
    const c10::impl::VirtualGuardImpl gpu(device.type());
    gpu.synchronizeStream(gpu.getStream(device));
}

// Waits for the device once.
std::vector<double> on_host(const std::vector<at::Tensor>& numbers) {
    if (numbers.empty()) return {};
    const at::Device device = numbers.front().device();
    const at::Tensor all = at::empty({std::ssize(numbers)},
                                     at::TensorOptions().dtype(at::kDouble).pinned_memory(device.is_cuda()));
    for (size_t i = 0; i < numbers.size(); ++i)
        all[static_cast<int64_t>(i)].copy_(numbers[i], /*non_blocking=*/true);
    if (device.is_cuda()) wait_for(device);
    const double* first = all.const_data_ptr<double>();
    return {first, first + all.numel()};
}

// What each rank has, one rank after the other: `numbers` of its device, then `signs`; every rank has as
// many. Waits for the device once, after all of the work has been given to it; gives it copies to do, no
// kernels but the collective's.
std::vector<double> gather_numbers(const std::vector<at::Tensor>& numbers, std::span<const double> signs,
                                   Communicator& communicator) {
    const at::Device device = numbers.front().device();
    const int64_t measured = std::ssize(numbers), share = measured + std::ssize(signs);
    const int64_t ranks = communicator.world_size(), begin = communicator.rank() * share;
    const auto doubles = at::TensorOptions().dtype(at::kDouble);
    const at::Tensor host = at::empty({ranks * share}, doubles.pinned_memory(device.is_cuda()));
    const at::Tensor all = device.is_cpu() ? host : at::empty({ranks * share}, doubles.device(device));
    for (int64_t i = 0; i < measured; ++i)
        all[begin + i].copy_(numbers[static_cast<size_t>(i)], /*non_blocking=*/true);
    std::ranges::copy(signs, host.data_ptr<double>() + begin + measured);
    const auto signs_in = [&](const at::Tensor& x) {
        return x.narrow(0, begin + measured, std::ssize(signs));
    };
    if (device.is_cuda()) signs_in(all).copy_(signs_in(host), /*non_blocking=*/true);
    const std::vector<int64_t> counts(static_cast<size_t>(ranks), share);
    communicator.all_gather(all, counts, "losses")->wait();
    if (device.is_cuda()) {
        host.copy_(all, /*non_blocking=*/true);
        wait_for(device);
    }
    const double* first = host.const_data_ptr<double>();
    return {first, first + host.numel()};
}

// The first step of each stage, and of those that look up a table that is no longer tied.
std::vector<int64_t> first_of_each_kind(const ScheduleConfig& schedule) {
    std::set<int64_t> steps;
    for (const Stage& stage : schedule.stages) steps.insert(stage.start);
    if (schedule.untie_after_step >= 0) steps.insert(schedule.untie_after_step + 1);
    std::set<int64_t> made;  // a run may end before its last stage
    for (const int64_t step : steps) made.insert(std::min(step, schedule.total_steps() - 1));
    return {made.begin(), made.end()};
}

RowShare row_share(const Communicator& communicator) {
    return {communicator.rank(), communicator.world_size()};
}

}  // namespace

std::optional<double> validate_unless(const std::function<bool()>& stop, GPT& model, const ValLoader& loader,
                                      const StepSettings& settings, Communicator& communicator) {
    const int64_t rank = communicator.rank(), ranks = communicator.world_size();
    std::vector<at::Tensor> own;
    bool stopped = false;
    for (int64_t i = rank; i < loader.size() && !stopped; i += ranks) {
        stopped = stop();
        if (!stopped) own.push_back(model.evaluate(loader.at(i), settings));
    }
    // The losses of all micro-batches, and on how many ranks it was stopped.
    std::vector<double> numbers(static_cast<size_t>(loader.size()) + 1, 0);
    numbers.back() = stopped ? 1 : 0;
    int64_t at = rank;
    for (const double mean : on_host(own)) {
        numbers[static_cast<size_t>(at)] = mean;
        at += ranks;
    }
    // Adding zeros is exact, and the mean is formed in one order.
    sum_over_ranks(numbers, communicator, "validation losses");
    if (numbers.back() > 0) return std::nullopt;
    return std::accumulate(numbers.begin(), numbers.end(), 0.0) / static_cast<double>(loader.size());
}

double validate(GPT& model, const ValLoader& loader, const StepSettings& settings,
                Communicator& communicator) {
    return *validate_unless([] { return false; }, model, loader, settings, communicator);
}

Trainer::Trainer(const Config& config, GPT& model, Communicator& communicator,
                 std::vector<std::filesystem::path> train_shards,
                 const std::vector<std::filesystem::path>& val_shards, RunOptions options)
    : config_(config),
      model_(model),
      communicator_(communicator),
      optimizer_(config, model.parameters(), communicator),
      train_shards_(std::move(train_shards)),
      val_loader_(val_shards, data_layout(config.data), val_row(config.data), config.data.val_tokens),
      options_(std::move(options)) {
    grad_accum_steps(config, communicator.world_size());
    model_.reserve_activations(activation_bytes_of_rank(config, communicator.rank()));
    const auto graphs =
        config.runtime.cuda_graphs && model.device().is_cuda() ? ops::cuda::make_graphs() : nullptr;
    model_.capture_with(graphs);
    optimizer_.capture_with(graphs);
    for (const Parameter& parameter : model_.parameters().all())
        communicator_.broadcast(parameter.value, 0, parameter.config.name)->wait();
    model_.parameters().refresh();
    warm_up();
    loader_ = std::make_unique<PrefetchingLoader>(train_shards_, data_layout(config.data),
                                                  step_shapes(config), row_share(communicator));
    if (!options_.checkpoints.empty())
        checkpointer_.emplace(
            Checkpointer::Run{config_, model_.parameters(), optimizer_, communicator_, options_.checkpoints});
}

void Trainer::resume(const Checkpoint& checkpoint) {
    const CheckpointManifest& saved = checkpoint.manifest;
    if (saved.step > config_.schedule.total_steps())
        throw UserError(checkpoint.folder.string() + ": was written after step " +
                        std::to_string(saved.step) + ", but this config's run ends after step " +
                        std::to_string(config_.schedule.total_steps()));
    load_checkpoint(checkpoint, config_, model_.parameters(), optimizer_, communicator_);
    if (saved.pending_gradients) optimizer_.find_pending_rows();
    // YaRN's steps are cumulative: the tables depend on every window on the way.
    model_.rotary().reset(config_.schedule.stages.front().window_long);
    for (const Stage& stage : config_.schedule.stages)
        if (stage.start < saved.step) model_.rotary().stretch(stage.window_long);
    loader_->seek(saved.data);
    clock_.set(saved.train_time_ms);
    first_step_ = saved.step;
    tokens_ = saved.tokens;
    last_loss_ = saved.train_loss;
    last_val_loss_ = saved.val_loss;
}

// Runs real steps of every kind so that workspaces, kernels and graphs exist before the clock starts, then
// puts weights, optimizer state, rotary tables and data back to where they were.
void Trainer::warm_up() {
    if (config_.runtime.warmup_steps == 0) return;
    std::vector<at::Tensor> initial;
    for (const Parameter& parameter : model_.parameters().all()) initial.push_back(parameter.value.clone());
    TrainLoader loader(train_shards_, data_layout(config_.data), row_share(communicator_));
    const auto& stages = config_.schedule.stages;
    const std::vector<int64_t> steps = first_of_each_kind(config_.schedule);
    for (int64_t i = 0; i < config_.runtime.warmup_steps; ++i) {
        // Two steps in turn: where a step is one micro-batch, it lies in each of its two places.
        const auto kind = static_cast<size_t>(i) / 2 % steps.size();
        if (kind == 0) model_.rotary().reset(stages.front().window_long);
        StepSettings settings = settings_at(config_, steps[kind]);
        settings.adam_steps = true;
        const std::vector<Batch> batches = loader.next_step_in_a_circle(step_shape(config_.data, settings));
        gradients(batches, settings);
        optimizer_.gradient_sum();
        optimizer_.step(settings);
    }
    size_t next = 0;
    for (Parameter& parameter : model_.parameters().all()) {
        parameter.value.copy_(initial[next++]);
        parameter.grad.zero_();
    }
    model_.parameters().refresh();
    optimizer_.reset();
    model_.rotary().reset(stages.front().window_long);
}

RunEnd Trainer::run(Reporter* reporter, Interrupt& interrupt) {
    const int64_t total = config_.schedule.total_steps();
    before_ = communicator_.stats();
    clock_.start();
    for (int64_t step = first_step_; step <= total; ++step) {
        if (options_.at_step) options_.at_step(step);
        const StepSettings settings = settings_at(config_, step);
        if (settings.validate && !validate_now(settings, reporter, interrupt))
            return stop_in_validation(step, reporter);
        if (!settings.trains) break;
        const bool stop = train_step(settings, reporter, interrupt);
        save_state(settings, reporter, stop);
        if (stop) {
            if (reporter) reporter->note("stopped by a signal after step " + std::to_string(step + 1));
            return RunEnd::interrupted;
        }
    }
    if (checkpointer_) checkpointer_->drain();
    report_checkpoints(reporter);
    return RunEnd::finished;
}

CheckpointManifest Trainer::manifest(int64_t steps_finished, bool adam_stepped,
                                     const Reporter* reporter) const {
    CheckpointManifest saved{.step = steps_finished,
                             .tokens = tokens_,
                             .train_time_ms = clock_.running_ms(),
                             .train_loss = last_loss_,
                             .val_loss = last_val_loss_,
                             .data = loader_->position(),
                             .train_shards = options_.train_shards,
                             .val_shards = options_.val_shards,
                             .world_size = communicator_.world_size(),
                             .threads = options_.threads,
                             .pending_gradients = !adam_stepped,
                             .config_hash = config_.hash,
                             .build = options_.build,
                             .files = {}};
    if (reporter) {
        saved.log_bytes = reporter->written().log_bytes;
        saved.metrics_bytes = reporter->written().metrics_bytes;
    }
    return saved;
}

void Trainer::save_state(const StepSettings& settings, Reporter* reporter, bool stop) {
    if (!checkpointer_) return;
    const int64_t finished = settings.step + 1;
    if (stop) return save_and_stop(finished, settings.adam_steps, reporter);
    const auto& when = config_.runtime.checkpoint;
    const bool last =
        finished == config_.schedule.total_steps() && (when.every_steps > 0 || when.every_minutes > 0);
    if (checkpointer_->wants(finished, settings.adam_steps) || last)
        checkpointer_->begin(manifest(finished, settings.adam_steps, reporter));
    report_checkpoints(reporter);
}

void Trainer::save_and_stop(int64_t finished, bool adam_stepped, Reporter* reporter) {
    if (!checkpointer_) return;
    if (checkpointer_->last_begun() != finished)
        checkpointer_->begin(manifest(finished, adam_stepped, reporter));
    const int64_t failures = checkpointer_->failures();
    checkpointer_->drain();
    report_checkpoints(reporter);
    if (checkpointer_->failures() > failures)
        throw UserError("stopped after step " + std::to_string(finished) +
                        ", but its checkpoint could not be written; the last one before it stands");
}

void Trainer::report_checkpoints(Reporter* reporter) {
    if (!checkpointer_) return;
    for (const std::string& note : checkpointer_->take_notes()) {
        if (reporter)
            reporter->note(note);
        else
            warn("{}", note);
    }
    if (reporter && !checkpointer_->last_saved().empty()) reporter->saved(checkpointer_->last_saved());
}

RankCosts Trainer::costs() const {
    const CommStats now = communicator_.stats();
    return {.optimizer_state_bytes = optimizer_.state_bytes(),
            .peak_memory_bytes = peak_memory(model_.device()).allocated,
            .steps = steps_,
            .bytes_sent = now.bytes_sent - before_.bytes_sent,
            .busy_ns = (now.busy - before_.busy).count(),
            .waited_ns = (now.waited - before_.waited).count()};
}

std::span<const std::filesystem::path> Trainer::train_shards_read() const {
    return std::span(train_shards_).first(static_cast<size_t>(loader_->position().shard) + 1);
}

bool Trainer::validate_now(const StepSettings& settings, Reporter* reporter, Interrupt& interrupt) {
    clock_.stop();
    const auto stop = [&] { return interrupt.poll().has_value(); };
    if (settings.readout > 0) optimizer_.read_average(settings.readout);
    const auto loss = validate_unless(stop, model_, val_loader_, settings, communicator_);
    if (settings.readout > 0) optimizer_.restore_values();
    if (loss && reporter) reporter->validation(settings.step, *loss, clock_.stopped_ms(), tokens_);
    if (loss) last_val_loss_ = loss;
    clock_.start();
    return loss.has_value();
}

// Where the run has not come further than it was when it began, there is nothing new to save.
RunEnd Trainer::stop_in_validation(int64_t finished, Reporter* reporter) {
    if (finished > first_step_)
        save_and_stop(finished, settings_at(config_, finished - 1).adam_steps, reporter);
    if (reporter)
        reporter->note("stopped by a signal in the validation after step " + std::to_string(finished));
    return RunEnd::interrupted;
}

Trainer::Agreed Trainer::agree(const std::vector<at::Tensor>& losses, const StepSettings& settings,
                               Interrupt& interrupt) {
    std::vector<at::Tensor> numbers = losses;
    numbers.push_back(optimizer_.gradient_sum());
    const double stop = interrupt.poll() ? 1 : 0;
    const auto own = checkpointer_ ? checkpointer_->signs(interrupt.poll_save()) : Checkpointer::Signs{};
    const std::vector<double> all =
        gather_numbers(numbers, std::array{stop, own.save, own.pending, own.failed}, communicator_);
    const size_t share = losses.size() + kStepSigns;
    Checkpointer::Signs signs;
    Agreed agreed;
    for (size_t begin = 0; begin < all.size(); begin += share) {
        const double* const rank = all.data() + begin;
        for (size_t i = 0; i < losses.size(); ++i) agreed.mean_loss += rank[i];
        const double* const of_rank = rank + losses.size();  // sum of gradients, and its signs
        agreed.finite = agreed.finite && std::isfinite(of_rank[0]);
        agreed.stop = agreed.stop || of_rank[1] > 0;
        signs.save += of_rank[2];
        signs.pending += of_rank[3];
        signs.failed += of_rank[4];
    }
    if (checkpointer_) checkpointer_->agreed(signs);
    agreed.mean_loss /= static_cast<double>(settings.batch_tokens);
    agreed.finite = agreed.finite && std::isfinite(agreed.mean_loss);
    return agreed;
}

void Trainer::look_up(const std::vector<Batch>& batches) {
    const auto& bigram = config_.model.input.bigram;
    if (!bigram || !optimizer_.sends_rows(bigram->table)) return;
    const int64_t table_rows = config_.model.param(bigram->table).shape[0];
    std::vector<int32_t> rows;
    for (const Batch& batch : batches) {
        bigram_rows(*bigram, table_rows, batch.inputs, rows);
        optimizer_.look_up(bigram->table, rows);
    }
}

std::vector<at::Tensor> Trainer::gradients(const std::vector<Batch>& batches, const StepSettings& settings) {
    look_up(batches);
    optimizer_.run_ahead(settings);
    optimizer_.begin(settings);
    GradReady grad_ready;
    if (optimizer_.reduces_early())
        grad_ready = [&](const ElementRange& part) { optimizer_.grad_ready(part); };
    return accumulate_gradients(model_, config_, batches, settings, grad_ready);
}

bool Trainer::train_step(const StepSettings& settings, Reporter* reporter, Interrupt& interrupt) {
    const std::vector<Batch> batches = loader_->next_step();
    const std::vector<at::Tensor> losses = gradients(batches, settings);
    const Agreed agreed = agree(losses, settings, interrupt);
    std::map<std::string, double> diagnostics;
    if (agreed.finite) {
        last_loss_ = agreed.mean_loss;
        diagnostics = optimizer_step(settings);
    } else {
        skip_step(settings, agreed, reporter);
    }
    tokens_ += settings.batch_tokens;
    ++steps_;
    if (reporter)
        reporter->step({.step = settings.step + 1,
                        .tokens = tokens_,
                        .step_tokens = settings.batch_tokens,
                        .train_time_ms = clock_.running_ms(),
                        .train_loss = agreed.mean_loss,
                        .lr_scale = settings.lr_scale,
                        .diagnostics = std::move(diagnostics)});
    return agreed.stop;
}

void Trainer::skip_step(const StepSettings& settings, const Agreed& agreed, Reporter* reporter) {
    const std::string step = std::to_string(settings.step + 1);
    const std::string what = std::isfinite(agreed.mean_loss) ? "a gradient of step " + step + " is not finite"
                                                             : "the training loss of step " + step + " is " +
                                                                   std::to_string(agreed.mean_loss);
    if (config_.runtime.non_finite == RuntimeConfig::NonFinite::stop)
        throw NonFiniteLoss(what + "; the weights are those " +
                            (settings.step == 0 ? "that the run began with"
                                                : "after step " + std::to_string(settings.step) +
                                                      ", whose loss was " + std::to_string(last_loss_)));
    optimizer_.skip();
    ++skipped_;
    if (reporter) reporter->note(what + "; it is skipped, the " + std::to_string(skipped_) + ". of this run");
}

std::map<std::string, double> Trainer::optimizer_step(const StepSettings& settings) {
    const int64_t every = options_.diagnostics_every;
    if (every == 0 || (settings.step + 1) % every != 0) {
        optimizer_.step(settings);
        return {};
    }
    optimizer_.gather_values();
    std::optional<StepDiagnostics> diagnostics;
    if (communicator_.rank() == 0) diagnostics.emplace(config_, model_.parameters());
    optimizer_.step(settings);
    optimizer_.gather_values();
    if (!diagnostics) return {};
    std::map<std::string, double> values;
    for (const MatrixDiagnostics& matrix : diagnostics->measure()) {
        values["rms/" + matrix.name] = matrix.rms;
        values["update_rms/" + matrix.name] = matrix.update_rms;
        values["condition/" + matrix.name] = matrix.condition;
    }
    return values;
}

}  // namespace speedrun

#include "train/trainer.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "optim/diagnostics.h"
#include "util/error.h"

namespace speedrun {

AttentionSettings attention_settings(const StepSettings& settings) {
    return {settings.window_short, settings.window_long, settings.yarn_window};
}

std::vector<StepShape> step_shapes(const Config& config) {
    std::vector<StepShape> shapes;
    for (int64_t step = 0; step < config.schedule.total_steps(); ++step) {
        const StepSettings settings = settings_at(config, step);
        shapes.push_back({settings.batch_tokens, settings.max_seq_len});
    }
    return shapes;
}

double validate(GPT& model, const ValLoader& loader, const AttentionSettings& settings) {
    double sum = 0;
    for (int64_t i = 0; i < loader.size(); ++i) sum += model.evaluate(loader.at(i), settings).item<double>();
    return sum / static_cast<double>(loader.size());
}

namespace {

// Divides the gradients that an optimizer is about to use. Adam's, between its steps, are not final yet.
void divide_gradients(ParameterTable& parameters, const Config& config, bool adam_steps) {
    for (const OptimParamConfig& row : config.optimizer.params) {
        if (row.rule == OptimParamConfig::Rule::adam && !adam_steps) continue;
        parameters[row.param].grad.mul_(1 / config.objective.grad_divisor);
    }
}

}  // namespace

double accumulate_gradients(GPT& model, const Config& config, const std::vector<Batch>& batches,
                            const StepSettings& settings) {
    using Accumulation = ObjectiveConfig::Accumulation;
    const Accumulation order = config.objective.accumulation;
    const double grad_scale = order == Accumulation::divide_then_sum ? 1 / config.objective.grad_divisor : 1;
    double sum = 0;
    for (const Batch& batch : batches)
        sum += model.forward_backward(batch, attention_settings(settings), grad_scale).item<double>();
    if (order == Accumulation::sum_then_divide)
        divide_gradients(model.parameters(), config, settings.adam_steps);
    return sum / static_cast<double>(settings.batch_tokens);
}

Trainer::Trainer(const Config& config, GPT& model, std::vector<std::filesystem::path> train_shards,
                 const std::vector<std::filesystem::path>& val_shards, RunOptions options)
    : config_(config),
      model_(model),
      optimizer_(config, model.parameters()),
      train_shards_(std::move(train_shards)),
      val_loader_(val_shards, val_layout(config.data), config.data.val_tokens),
      options_(options) {
    warm_up();
    loader_ =
        std::make_unique<PrefetchingLoader>(train_shards_, train_layout(config.data), step_shapes(config));
}

// Runs real steps of every stage so that workspaces, kernels and graphs exist before the clock starts, then
// puts weights, optimizer state, rotary tables and data back to where they were.
void Trainer::warm_up() {
    if (config_.runtime.warmup_steps == 0) return;
    std::vector<at::Tensor> initial;
    for (const Parameter& parameter : model_.parameters().all()) initial.push_back(parameter.value.clone());
    TrainLoader loader(train_shards_, train_layout(config_.data));
    const auto& stages = config_.schedule.stages;
    for (int64_t i = 0; i < config_.runtime.warmup_steps; ++i) {
        const auto stage = static_cast<size_t>(i) % stages.size();
        if (stage == 0) model_.rotary().reset(stages.front().window_long);
        StepSettings settings =
            settings_at(config_, std::min(stages[stage].start, config_.schedule.total_steps() - 1));
        settings.adam_steps = true;
        accumulate_gradients(model_, config_, loader.next_step({settings.batch_tokens, settings.max_seq_len}),
                             settings);
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

RunEnd Trainer::run(Reporter& reporter, Interrupt& interrupt) {
    const int64_t total = config_.schedule.total_steps();
    clock_.start();
    for (int64_t step = 0; step <= total; ++step) {
        const StepSettings settings = settings_at(config_, step);
        if (settings.validate) validate_now(settings, reporter);
        if (!settings.trains) break;
        train_step(settings, reporter);
        if (interrupt.poll()) {
            reporter.note("stopped by a signal after step " + std::to_string(step + 1));
            return RunEnd::interrupted;
        }
    }
    return RunEnd::finished;
}

void Trainer::validate_now(const StepSettings& settings, Reporter& reporter) {
    clock_.stop();
    const double loss = validate(model_, val_loader_, attention_settings(settings));
    reporter.validation(settings.step, loss, clock_.stopped_ms(), tokens_);
    clock_.start();
}

void Trainer::train_step(const StepSettings& settings, Reporter& reporter) {
    const double loss = accumulate_gradients(model_, config_, loader_->next_step(), settings);
    if (!std::isfinite(loss))
        throw NonFiniteLoss("the training loss of step " + std::to_string(settings.step + 1) + " is " +
                            std::to_string(loss) + "; the weights are those after step " +
                            std::to_string(settings.step) + ", whose loss was " + std::to_string(last_loss_));
    last_loss_ = loss;
    auto diagnostics = optimizer_step(settings);
    tokens_ += settings.batch_tokens;
    reporter.step({.step = settings.step + 1,
                   .tokens = tokens_,
                   .step_tokens = settings.batch_tokens,
                   .train_time_ms = clock_.running_ms(),
                   .train_loss = loss,
                   .lr_scale = settings.lr_scale,
                   .diagnostics = std::move(diagnostics)});
}

std::map<std::string, double> Trainer::optimizer_step(const StepSettings& settings) {
    const int64_t every = options_.diagnostics_every;
    if (every == 0 || (settings.step + 1) % every != 0) {
        optimizer_.step(settings);
        return {};
    }
    StepDiagnostics diagnostics(config_, model_.parameters());
    optimizer_.step(settings);
    std::map<std::string, double> values;
    for (const MatrixDiagnostics& matrix : diagnostics.measure()) {
        values["rms/" + matrix.name] = matrix.rms;
        values["update_rms/" + matrix.name] = matrix.update_rms;
        values["condition/" + matrix.name] = matrix.condition;
    }
    return values;
}

}  // namespace speedrun

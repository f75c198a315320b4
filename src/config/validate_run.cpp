#include <algorithm>

#include "config/notation.h"
#include "config/validate.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

void check_multiple(const std::string& path, int64_t value, const std::string& of, int64_t unit,
                    const Report& report) {
    if (value % unit != 0)
        report.fail(path, "is no multiple of " + of,
                    {std::to_string(value), "a multiple of " + std::to_string(unit), ""});
}

template <class S>
void check_starts(const std::string& path, const std::vector<S>& stages, const Report& report) {
    for (size_t k = 0; k < stages.size(); ++k) {
        const std::string at = join_path(path, k) + ".start", start = std::to_string(stages[k].start);
        if (k == 0 && stages[k].start != 0)
            report.fail(at, "the first stage starts at step 0", {start, "0", ""});
        if (k > 0 && stages[k].start <= stages[k - 1].start)
            report.fail(at, "stages must ascend",
                        {start, "more than " + std::to_string(stages[k - 1].start), ""});
    }
}

void check_order(const std::string& path, double begin, double end, const Report& report) {
    if (end < begin)
        report.fail(path + ".end", "lies before `begin`",
                    {Json(end).dump(), "at least " + Json(begin).dump(), ""});
}

// The table of prefixes is there exactly where it is used.
void check_prefix_table(const Config& config, const Report& report) {
    const std::string& table = config.data.prefix_table;
    const auto& stages = config.schedule.stages;
    const auto weighs = [](const Stage& stage) { return stage.prefix && stage.prefix->weighs(); };
    const auto first = std::ranges::find_if(stages, weighs);
    if (first != stages.end() && table.empty())
        report.fail("data.prefix_table",
                    join_path("schedule.stages", static_cast<size_t>(first - stages.begin())) +
                        ".prefix has a weight",
                    {"\"\"", "a folder with vocab.bpe and encoder.json, or a JSON file", ""});
    if (first == stages.end() && !table.empty())
        report.fail("data.prefix_table", "no stage has a prefix with a weight: it would never be used",
                    {in_quotes(table), "\"\", or a schedule.stages[].prefix with a weight above 0", ""});
}

void check_mtp(const std::string& path, const Mtp& mtp, const Report& report) {
    if (mtp.from.size() != mtp.to.size())
        report.fail(path + ".to", "has another number of weights than `from`",
                    {std::to_string(mtp.to.size()), std::to_string(mtp.from.size()), ""});
    for (const auto& [name, weights] : {std::pair{".from", &mtp.from}, {".to", &mtp.to}})
        if (weights->front() <= 0)
            report.fail(path + name, "the next token has no weight",
                        {Json(weights->front()).dump(), "a first weight above 0", ""});
    check_order(path, mtp.begin, mtp.end, report);
}

// Beyond the end of a row there are no targets.
void check_row_holds_targets(const std::string& path, const Stage& stage, int64_t rows,
                             const Report& report) {
    const int64_t tokens = stage.batch_tokens / rows, targets = std::ssize(stage.mtp->from);
    if (targets > tokens)
        report.fail(path + ".mtp.from", "a token has more targets than a row has tokens",
                    {std::to_string(targets), "at most " + std::to_string(tokens), ""});
}

void check_lr(const std::string& lr_path, const LrSchedule& lr, int64_t scheduled_steps,
              const Report& report) {
    check_starts(lr_path + ".stages", lr.stages, report);
    if (lr.cooldown_start < 0) return;
    const std::string path = lr_path + ".cooldown_start";
    if (lr.cooldown_frac != 0)
        report.fail(path, lr_path + ".cooldown_frac says where the decay starts",
                    {std::to_string(lr.cooldown_start), "-1, or cooldown_frac 0", ""});
    if (lr.cooldown_start >= scheduled_steps)
        report.fail(path, "the schedule is over by then",
                    {std::to_string(lr.cooldown_start),
                     "a step below schedule.scheduled_steps = " + std::to_string(scheduled_steps), ""});
}

void check_tie(const Config& config, const Report& report) {
    const bool tied = !config.model.input.tied_to.empty(), unties = config.schedule.untie_after_step >= 0;
    if (tied && !unties)
        report.fail(
            "schedule.untie_after_step",
            "model.input.tied_to is given: " + in_quotes(config.model.input.token) + " would never be used",
            {"-1", "a step, or model.input.token " + in_quotes(config.model.input.tied_to), ""});
    if (unties && !tied)
        report.fail("schedule.untie_after_step", "nothing is tied",
                    {std::to_string(config.schedule.untie_after_step), "-1, or model.input.tied_to", ""});
    if (tied && config.model.input.tied_to == config.model.input.token)
        report.fail("model.input.tied_to", "is model.input.token itself",
                    {in_quotes(config.model.input.token), "another parameter", ""});
}

// Rows and validation micro-batches are whole sequences, at whose ends documents would be cut.
void check_sequences(const Config& config, const Report& report) {
    const int64_t sequence = config.data.sequence_tokens;
    if (sequence == 0) return;
    const std::string unit = "data.sequence_tokens";
    check_multiple("data.val_micro_batch_tokens", config.data.val_micro_batch_tokens, unit, sequence, report);
    for (size_t k = 0; k < config.schedule.stages.size(); ++k) {
        const Stage& stage = config.schedule.stages[k];
        const std::string path = join_path("schedule.stages", k);
        check_multiple(path + ".batch_tokens", stage.batch_tokens, "data.rows times " + unit,
                       config.data.rows * sequence, report);
        if (stage.max_seq_len != sequence)
            report.fail(path + ".max_seq_len", "is not the length of a sequence",
                        {std::to_string(stage.max_seq_len), unit + " = " + std::to_string(sequence), ""});
    }
    for (size_t i = 0; i < config.model.layers.size(); ++i) {
        const auto& attn = config.model.layers[i].attn;
        if (attn && attn->kind == AttentionConfig::Kind::paired)
            report.fail(join_path("model.layers", i) + ".attn.kind", "paired heads do not know sequences",
                        {"\"paired\"", "causal, or data.sequence_tokens 0", ""});
    }
}

}  // namespace

void validate_data(const Config& config, const Report& report) {
    const DataConfig& data = config.data;
    if (data.bos_id >= data.vocab_size)
        report.fail("data.bos_id", "is no token id",
                    {std::to_string(data.bos_id), "0 .. " + std::to_string(data.vocab_size - 1), ""});
    if (data.vocab_size > config.model.vocab_size)
        report.fail("data.vocab_size", "the model's tables have fewer rows",
                    {std::to_string(data.vocab_size), "1 .. " + std::to_string(config.model.vocab_size), ""});
    check_multiple("data.val_tokens", data.val_tokens, "data.val_micro_batch_tokens",
                   data.val_micro_batch_tokens, report);
    check_sequences(config, report);
}

void validate_schedule(const Config& config, const Report& report) {
    const auto& stages = config.schedule.stages;
    if (stages.empty()) report.fail("schedule.stages", "there is no stage", {"", "one at least", ""});
    check_starts("schedule.stages", stages, report);
    const int64_t scheduled = config.schedule.scheduled_steps;
    check_lr("schedule.lr", config.schedule.lr, scheduled, report);
    if (config.schedule.matrix_lr)
        check_lr("schedule.matrix_lr", *config.schedule.matrix_lr, scheduled, report);
    if (config.schedule.total_steps() < 1)
        report.fail("schedule.extension_steps", "no step is left",
                    {std::to_string(config.schedule.extension_steps),
                     "at least " + std::to_string(1 - scheduled), ""});
    for (size_t k = 0; k < stages.size(); ++k) {
        const std::string path = join_path("schedule.stages", k);
        check_multiple(path + ".batch_tokens", stages[k].batch_tokens, "data.rows", config.data.rows, report);
        if (const auto& prefix = stages[k].prefix)
            check_order(path + ".prefix", prefix->begin, prefix->end, report);
        if (!stages[k].mtp) continue;
        check_mtp(path + ".mtp", *stages[k].mtp, report);
        check_row_holds_targets(path, stages[k], config.data.rows, report);
    }
    check_prefix_table(config, report);
    check_tie(config, report);
}

namespace {

// The path of the MLPs' format that is fp8; "" where none is.
std::string mlp_in_fp8(const NumericsConfig::Mlp& mlp) {
    using Format = NumericsConfig::Mlp::Format;
    if (mlp.up.format == Format::fp8) return "numerics.mlp.up.format";
    return mlp.down.format == Format::fp8 ? "numerics.mlp.down.format" : "";
}

// cuBLASLt multiplies 8-bit floats whose sizes are multiples of 16.
void check_fp8_sizes(const Config& config, const Report& report) {
    if (config.runtime.device == RuntimeConfig::Device::cpu) return;
    const bool head = config.numerics.lm_head.format == NumericsConfig::Head::Format::fp8;
    const std::string mlp = mlp_in_fp8(config.numerics.mlp), any = head ? "numerics.lm_head.format" : mlp;
    const auto& stages = config.schedule.stages;
    for (size_t k = 0; !any.empty() && k < stages.size(); ++k)
        if (const int64_t tokens = stages[k].batch_tokens / config.data.rows; tokens % 16 != 0)
            report.fail(join_path("schedule.stages", k) + ".batch_tokens",
                        any + " fp8 takes rows of 16 tokens at a time",
                        {std::to_string(tokens) + " tokens a row", "a multiple of 16", ""});
    if (mlp.empty()) return;
    const ModelConfig& model = config.model;
    for (const auto& [path, size] :
         {std::pair{"model.d_model", model.d_model}, {"model.mlp_hidden", model.mlp_hidden}})
        if (size % 16 != 0)
            report.fail(path, mlp + " fp8 takes 16 channels at a time",
                        {std::to_string(size), "a multiple of 16", ""});
}

}  // namespace

// Whether the device is a GPU is known only where it runs.
void validate_runtime(const Config& config, const Report& report) {
    const RuntimeConfig& runtime = config.runtime;
    check_fp8_sizes(config, report);
    if (runtime.attention != RuntimeConfig::Attention::cudnn) return;
    const std::string path = "runtime.attention";
    if (runtime.device == RuntimeConfig::Device::cpu)
        report.fail(path, "cuDNN needs a GPU, and runtime.device is cpu", {"cudnn", "flash", ""});
    if (config.numerics.activations != Dtype::bf16)
        report.fail(path, "cuDNN needs numerics.activations bf16", {"cudnn", "flash", ""});
    const int64_t head_dim = config.model.head_dim;
    if (head_dim != 64 && head_dim != 128)
        report.fail(path, "cuDNN needs model.head_dim 64 or 128, it is " + std::to_string(head_dim),
                    {"cudnn", "flash", ""});
}

}  // namespace speedrun

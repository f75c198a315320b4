#include <algorithm>

#include "config/matrix_rules.h"
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

using Method = MatrixConfig::Orthogonalize::Method;

// A side that the rule multiplies by a preconditioner of its own.
bool has_side(const MatrixConfig& matrix, const OptimParamConfig& row) {
    return std::min(row.matrix_view[1], row.matrix_view[2]) <= matrix.preconditioner.max_size;
}

// What only the rules that are a choice of parts know.
void check_pipeline_parts(const MatrixConfig& matrix, const OptimParamConfig& row, const ParamConfig& param,
                          const std::string& path, const Report& report) {
    const bool pipeline = (matrix_rule(matrix.rule).parts & matrix_part::pipeline) != 0;
    if (!pipeline && param.master == ParamConfig::Master::mantissa)
        report.fail("model.params." + param.name + ".master", matrix.rule + " keeps no 16 more bits",
                    {"\"bf16+u16\"", "value", ""});
    if (!pipeline && !row.per_matrix_lr_mul.empty())
        report.fail(path + ".per_matrix_lr_mul", matrix.rule + " has one rate for all matrices",
                    {Json(row.per_matrix_lr_mul).dump(), "none", ""});
    const auto turn = std::max<int64_t>(1, std::ssize(row.per_matrix_lr_mul));
    if (row.matrix_view[0] / param.shape[0] % turn != 0)
        report.fail(path + ".per_matrix_lr_mul", "does not go evenly into an entry's matrices",
                    {std::to_string(turn) + " numbers",
                     "a divisor of " + std::to_string(row.matrix_view[0] / param.shape[0]), ""});
}

void check_row(const Config& config, const OptimParamConfig& row, const ParamConfig& param,
               const Report& report) {
    if (param.master == ParamConfig::Master::mantissa &&
        (param.dtype != Dtype::bf16 || row.rule != OptimParamConfig::Rule::matrix))
        report.fail("model.params." + param.name + ".master", "16 more bits need bf16 and a rule of matrices",
                    {"\"bf16+u16\"", "value", ""});
    if (row.rule != OptimParamConfig::Rule::matrix) return;
    const std::string path = "optimizer.params." + row.param;
    if (param.shape.size() < 2)
        report.fail(path + ".optim", "the parameter holds no matrices",
                    {"\"matrix\" for shape " + Json(param.shape).dump(), "adam", ""});
    const std::vector<int64_t> view(row.matrix_view.begin(), row.matrix_view.end());
    if (product(view) != product(param.shape))
        report.fail(path + ".matrix_view", "does not hold the parameter",
                    {Json(view).dump(),
                     "[matrices, rows, cols] with as many elements as " + Json(param.shape).dump(), ""});
    if (row.matrix_view[0] % param.shape[0] != 0)
        report.fail(path + ".matrix_view", "splits matrices over dimension 0",
                    {std::to_string(row.matrix_view[0]) + " matrices",
                     "a multiple of the parameter's " + std::to_string(param.shape[0]) + " entries", ""});
    const MatrixConfig& matrix = config.optimizer.matrix;
    check_pipeline_parts(matrix, row, param, path, report);
    if ((matrix_rule(matrix.rule).parts & matrix_part::preconditioner) && !has_side(matrix, row))
        report.fail(path + ".matrix_view", matrix.rule + " has no side to precondition",
                    {Json(view).dump(),
                     "rows or cols of at most optimizer.matrix.preconditioner.max_size = " +
                         std::to_string(matrix.preconditioner.max_size),
                     ""});
}

void check_orthogonalize(const MatrixConfig& matrix, const Report& report) {
    const std::string path = "optimizer.matrix.orthogonalize";
    // The published coefficients of Polar Express end there.
    constexpr int64_t polar_express_iters = 5;
    const auto& ortho = matrix.orthogonalize;
    if (ortho.method == Method::polar_express && ortho.iters > polar_express_iters)
        report.fail(path + ".iters", "polar_express has fewer coefficients",
                    {std::to_string(ortho.iters), "1 .. 5", ""});
    // Its two matrices are each other's inverses only as far as they are exact.
    if (ortho.method == Method::preconditioner && ortho.dtype != Dtype::fp32)
        report.fail(path + ".dtype", "the preconditioner's iteration needs fp32", {"bf16", "fp32", ""});
}

void check_matrix(const MatrixConfig& matrix, const Report& report) {
    if (matrix.decay == MatrixConfig::Decay::none && matrix.weight_decay != 0)
        report.fail("optimizer.matrix.weight_decay", "has no effect with decay none",
                    {Json(matrix.weight_decay).dump(), "0, or another decay", ""});
    const unsigned parts = matrix_rule(matrix.rule).parts;
    if (parts & matrix_part::pipeline) check_orthogonalize(matrix, report);
    if (matrix.rule != "shampoo" && matrix.preconditioner.beta == 1)
        report.fail("optimizer.matrix.preconditioner.beta", "only shampoo sums",
                    {"1", "a number >= 0, < 1", ""});
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

void check_cooldown(const ScheduleConfig& schedule, const Report& report) {
    const auto& lr = schedule.lr;
    if (lr.cooldown_start < 0) return;
    const std::string path = "schedule.lr.cooldown_start";
    if (lr.cooldown_frac != 0)
        report.fail(path, "schedule.lr.cooldown_frac says where the decay starts",
                    {std::to_string(lr.cooldown_start), "-1, or cooldown_frac 0", ""});
    if (lr.cooldown_start >= schedule.scheduled_steps)
        report.fail(
            path, "the schedule is over by then",
            {std::to_string(lr.cooldown_start),
             "a step below schedule.scheduled_steps = " + std::to_string(schedule.scheduled_steps), ""});
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
}

void validate_optimizer(const Config& config, const Report& report) {
    std::vector<std::string> names;
    for (const ParamConfig& param : config.model.params) names.push_back(param.name);
    for (const OptimParamConfig& row : config.optimizer.params) {
        const auto param = std::find(names.begin(), names.end(), row.param);
        if (param == names.end())
            report.fail_name("optimizer.params." + row.param, "the model has no such parameter", row.param,
                             names);
        check_row(config, row, config.model.params[static_cast<size_t>(param - names.begin())], report);
    }
    for (const std::string& name : names)
        if (std::none_of(config.optimizer.params.begin(), config.optimizer.params.end(),
                         [&](const auto& row) { return row.param == name; }))
            report.fail("optimizer.params", "no row for parameter " + in_quotes(name),
                        {"", "one for each of model.params", ""});
    check_matrix(config.optimizer.matrix, report);
}

void validate_schedule(const Config& config, const Report& report) {
    const auto& stages = config.schedule.stages;
    if (stages.empty()) report.fail("schedule.stages", "there is no stage", {"", "one at least", ""});
    check_starts("schedule.stages", stages, report);
    check_starts("schedule.lr.stages", config.schedule.lr.stages, report);
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
    check_cooldown(config.schedule, report);
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

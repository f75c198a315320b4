#include <algorithm>
#include <utility>

#include "config/matrix_rules.h"
#include "config/notation.h"
#include "config/validate.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

using Method = MatrixConfig::Orthogonalize::Method;
using DirectionKind = MatrixConfig::Direction::Kind;

// A side that the rule multiplies by a preconditioner of its own.
bool has_side(const MatrixConfig& matrix, const OptimParamConfig& row) {
    return std::min(row.matrix_view[1], row.matrix_view[2]) <= matrix.preconditioner.max_size;
}

// A list that holds for one matrix after the other in turn must go evenly into an entry's.
void check_turn(const OptimParamConfig& row, const ParamConfig& param, const std::string& path, size_t count,
                const Report& report) {
    const auto turn = std::max<int64_t>(1, static_cast<int64_t>(count));
    if (row.matrix_view[0] / param.shape[0] % turn != 0)
        report.fail(path, "does not go evenly into an entry's matrices",
                    {std::to_string(turn) + " of them",
                     "a divisor of " + std::to_string(row.matrix_view[0] / param.shape[0]), ""});
}

void check_uses(const MatrixConfig& matrix, const OptimParamConfig& row, const std::string& path,
                const Report& report) {
    const auto& uses = row.per_matrix_direction;
    if (!uses.empty() && matrix.direction.kind != DirectionKind::soap)
        report.fail(path, "only the direction soap can be left out for some matrices",
                    {Json(uses).dump(), "none, or optimizer.matrix.direction.kind soap", ""});
    const std::vector<std::string> known{"off", "on", "gated"};
    for (const std::string& use : uses)
        if (std::ranges::find(known, use) == known.end())
            report.fail_name(path, "no such use of a direction", use, known);
}

// Parts that rescale a value need all of its bits in one place.
bool rescales(const MatrixConfig& matrix) {
    return matrix.length.kind != MatrixConfig::Length::Kind::free || matrix.row_norms ||
           matrix.decay == MatrixConfig::Decay::cautious_last;
}

// Kinds that multiply by a matrix of each side.
bool has_bases(DirectionKind kind) {
    return kind == DirectionKind::soap || kind == DirectionKind::kl_soap || kind == DirectionKind::powers ||
           kind == DirectionKind::shampoo;
}

// What only the rules that are a choice of parts know.
void check_pipeline_parts(const MatrixConfig& matrix, const OptimParamConfig& row, const ParamConfig& param,
                          const std::string& path, const Report& report) {
    const bool pipeline = (matrix_rule(matrix.rule).parts & matrix_part::pipeline) != 0;
    if ((!pipeline || rescales(matrix)) && param.master == ParamConfig::Master::mantissa)
        report.fail("model.params." + param.name + ".master", matrix.rule + " keeps no 16 more bits",
                    {"\"bf16+u16\"", "value", ""});
    if (!pipeline && !row.per_matrix_lr_mul.empty())
        report.fail(path + ".per_matrix_lr_mul", matrix.rule + " has one rate for all matrices",
                    {Json(row.per_matrix_lr_mul).dump(), "none", ""});
    if (!row.per_matrix_norm_mul.empty() && !(pipeline && matrix.row_norms))
        report.fail(path + ".per_matrix_norm_mul",
                    "multiplies optimizer.matrix.row_norms, which is not there",
                    {Json(row.per_matrix_norm_mul).dump(), "none", ""});
    check_uses(matrix, row, path + ".per_matrix_direction", report);
    check_turn(row, param, path + ".per_matrix_lr_mul", row.per_matrix_lr_mul.size(), report);
    check_turn(row, param, path + ".per_matrix_norm_mul", row.per_matrix_norm_mul.size(), report);
    check_turn(row, param, path + ".per_matrix_direction", row.per_matrix_direction.size(), report);
    if (const int64_t longer = std::max(row.matrix_view[1], row.matrix_view[2]);
        pipeline && has_bases(matrix.direction.kind) && longer > matrix.preconditioner.max_size)
        report.fail(path + ".matrix_view", matrix.rule + " has a matrix of each side",
                    {"a side of " + std::to_string(longer),
                     "at most optimizer.matrix.preconditioner.max_size = " +
                         std::to_string(matrix.preconditioner.max_size),
                     ""});
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
    if (ortho.method == Method::polar_express && ortho.coefficients.empty() &&
        ortho.iters > polar_express_iters)
        report.fail(path + ".iters", "polar_express has fewer coefficients",
                    {std::to_string(ortho.iters), "1 .. 5, or coefficients", ""});
    if (ortho.coefficients.size() % 3 != 0)
        report.fail(path + ".coefficients", "an iteration has three",
                    {std::to_string(ortho.coefficients.size()) + " numbers", "a multiple of 3", ""});
    // Its two matrices are each other's inverses only as far as they are exact.
    if (ortho.method == Method::preconditioner && ortho.dtype != Dtype::fp32)
        report.fail(path + ".dtype", "the preconditioner's iteration needs fp32", {"bf16", "fp32", ""});
}

// Parts that need another one.
void check_parts(const MatrixConfig& matrix, const Report& report) {
    const std::string path = "optimizer.matrix";
    const auto& ortho = matrix.orthogonalize;
    const bool polynomial = ortho.method == Method::polar_express || ortho.method == Method::newton_schulz;
    const std::pair<const char*, bool> of_polynomials[] = {
        {".contra", matrix.contra != 0},
        {".orthogonalize.coefficients", !ortho.coefficients.empty()},
        {".orthogonalize.power", ortho.power.has_value()},
        {".row_norms", matrix.row_norms.has_value()}};
    for (const auto& [part, there] : of_polynomials)
        if (there && !polynomial)
            report.fail(
                path + part, "needs an iteration that orthogonalises",
                {"orthogonalize.method preconditioner or none", "polar_express or newton_schulz", ""});
    const auto& length = matrix.length;
    const bool other_step = matrix.direction.kind != DirectionKind::momentum || matrix.contra != 0 ||
                            matrix.second_moment != MatrixConfig::SecondMoment::none ||
                            length.kind != MatrixConfig::Length::Kind::free || length.floor != 0 ||
                            length.outward != 1 || length.inward != 1 ||
                            matrix.decay != MatrixConfig::Decay::none;
    if (matrix.row_norms && other_step)
        report.fail(path + ".row_norms", "makes a step of its own",
                    {"a direction, contra, second_moment, length or decay beside it", "none of them", ""});
    const auto& gate = matrix.direction.gate;
    if (gate.floor > gate.cap)
        report.fail(path + ".direction.gate.floor", "lies above the cap",
                    {Json(gate.floor).dump(), "at most " + Json(gate.cap).dump(), ""});
    if (gate.floor_end < gate.floor_until)
        report.fail(path + ".direction.gate.floor_end", "lies before floor_until",
                    {std::to_string(gate.floor_end), "at least " + std::to_string(gate.floor_until), ""});
}

void check_matrix(const MatrixConfig& matrix, const Report& report) {
    if (matrix.decay == MatrixConfig::Decay::none && matrix.weight_decay != 0)
        report.fail("optimizer.matrix.weight_decay", "has no effect with decay none",
                    {Json(matrix.weight_decay).dump(), "0, or another decay", ""});
    const unsigned parts = matrix_rule(matrix.rule).parts;
    if (parts & matrix_part::pipeline) {
        check_orthogonalize(matrix, report);
        check_parts(matrix, report);
    } else if (matrix.decay == MatrixConfig::Decay::cautious_last) {
        report.fail("optimizer.matrix.decay", matrix.rule + " has no such decay",
                    {"cautious_last", "none, decoupled, cautious", ""});
    }
    if (matrix.rule != "shampoo" && matrix.preconditioner.beta == 1)
        report.fail("optimizer.matrix.preconditioner.beta", "only shampoo sums",
                    {"1", "a number >= 0, < 1", ""});
}

// Steps [from, until) of a part of the optimizer.
void check_span(const std::string& path, int64_t from, int64_t until, const Report& report) {
    if (until <= from)
        report.fail(path + ".until", "there is no step in between",
                    {std::to_string(until), "more than from = " + std::to_string(from), ""});
}

// A lookahead and an average follow every step of every value, all of its bits.
void check_follows_every_step(const Config& config, const std::string& path, const Report& report) {
    const int64_t every = config.optimizer.adam.every_n_steps;
    if (every != 1)
        report.fail("optimizer.adam.every_n_steps", path + " follows every step",
                    {std::to_string(every), "1, or no " + path, ""});
    if (config.schedule.freeze.steps > 0 || !config.model.input.tied_to.empty())
        report.fail(path, "parameters rest in some steps, by schedule.freeze or model.input.tied_to",
                    {"", "null, or neither of these", ""});
    for (const ParamConfig& param : config.model.params)
        if (param.master == ParamConfig::Master::mantissa)
            report.fail("model.params." + param.name + ".master",
                        path + " follows values without 16 more bits",
                        {"\"bf16+u16\"", "value, or no " + path, ""});
}

void check_around_rules(const Config& config, const std::vector<std::string>& params, const Report& report) {
    const OptimizerConfig& optimizer = config.optimizer;
    if (const auto& ahead = optimizer.lookahead) {
        check_span("optimizer.lookahead", ahead->from, ahead->until, report);
        check_follows_every_step(config, "optimizer.lookahead", report);
    }
    if (!optimizer.tail_ema) return;
    check_follows_every_step(config, "optimizer.tail_ema", report);
    const TailEmaConfig& tail = *optimizer.tail_ema;
    check_span("optimizer.tail_ema", tail.from, tail.until, report);
    for (size_t k = 0; k < tail.without.size(); ++k)
        if (std::ranges::find(params, tail.without[k]) == params.end())
            report.fail_name(join_path("optimizer.tail_ema.without", k), "the model has no such parameter",
                             tail.without[k], params);
}

}  // namespace

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
    check_around_rules(config, names, report);
}

}  // namespace speedrun

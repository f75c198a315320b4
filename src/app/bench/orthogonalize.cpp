#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/core.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/session.h"
#include "app/verbs.h"
#include "config/matrix_rules.h"
#include "model/parameters.h"
#include "ops/dtype.h"
#include "ops/optim/matrix_update.h"
#include "optim/orthogonality.h"
#include "plan/throughput.h"
#include "util/json_document.h"
#include "util/text_table.h"

namespace speedrun {
namespace {

using Method = MatrixConfig::Orthogonalize::Method;

struct Way {
    std::string name;
    MatrixConfig config;
};

Way way(const std::string& rule, const std::string& name, int64_t iters, Dtype dtype) {
    MatrixConfig config = matrix_defaults(rule);
    config.orthogonalize.iters = iters;
    config.orthogonalize.dtype = dtype;
    return {name, config};
}

std::vector<Way> ways(Dtype dtype) {
    std::vector<Way> found;
    for (const int64_t iters : {3, 4, 5}) found.push_back(way("normuon", "polar_express", iters, dtype));
    for (const int64_t iters : {3, 5, 6, 10}) found.push_back(way("muon", "newton_schulz", iters, dtype));
    for (const int64_t iters : {10, 15})
        found.push_back(way("mommuon", "preconditioner", iters, Dtype::fp32));
    return found;
}

struct Shape {
    int64_t rows = 0, cols = 0;
};

Shape parse_shape(const std::string& text) {
    Shape shape;
    char rest = 0;
    long long rows = 0, cols = 0;
    if (std::sscanf(text.c_str(), "%lldx%lld%c", &rows, &cols, &rest) != 2 || rows < 1 || cols < 1 ||
        rows > 1 << 14 || cols > 1 << 14)
        throw UserError("bench orthogonalize: --shape \"" + text +
                        "\" is not ROWSxCOLS, such as 256x1024, of at most 16384");
    shape.rows = rows;
    shape.cols = cols;
    return shape;
}

// Seconds for each matrix, of groups as an update works on.
double seconds_each(const Shape& shape, const MatrixConfig& config) {
    using Clock = std::chrono::steady_clock;
    const int64_t count = std::min<int64_t>(ops::matrix_group(shape.rows, shape.cols), 32);
    const at::Tensor g =
        matrices_of_condition(count, shape.rows, shape.cols, 0).to(scalar_type(config.orthogonalize.dtype));
    double best = 1e9, spent = 0;
    for (int i = 0; i < 20 && (i < 3 || spent < 0.3); ++i) {
        const auto start = Clock::now();
        orthogonalized(g, config);
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        best = std::min(best, seconds);
        spent += seconds;
    }
    return best / static_cast<double>(count);
}

// One line for each conditioning; times do not depend on it.
Json measure(const Shape& shape, const Way& way, const std::vector<double>& conditions, double peak) {
    const auto& ortho = way.config.orthogonalize;
    const double seconds = seconds_each(shape, way.config);
    const double flop = orthogonalize_flop(shape.rows, shape.cols, ortho);
    Json rows = Json::array();
    for (const double condition : conditions) {
        at::manual_seed(1);
        const at::Tensor g = matrices_of_condition(1, shape.rows, shape.cols, condition);
        const SingularValues found =
            singular_values(orthogonalized(g.to(scalar_type(ortho.dtype)), way.config));
        rows.push_back({{"rows", shape.rows},
                        {"cols", shape.cols},
                        {"method", way.name},
                        {"iters", ortho.iters},
                        {"dtype", ortho.dtype == Dtype::bf16 ? "bf16" : "fp32"},
                        {"condition", condition},
                        {"min", found.min},
                        {"max", found.max},
                        {"in_band", found.in_band},
                        {"ms", 1e3 * seconds},
                        {"flop_per_s", flop / seconds},
                        {"share_of_gemm_peak", flop / seconds / peak}});
    }
    return rows;
}

std::vector<std::string> cells(const Json& row) {
    const double condition = row["condition"];
    return {std::to_string(row["rows"].get<int64_t>()) + "x" + std::to_string(row["cols"].get<int64_t>()) +
                " " + row["method"].get<std::string>(),
            std::to_string(row["iters"].get<int64_t>()),
            row["dtype"],
            condition == 0 ? "normal" : fmt::format("{:.0e}", condition),
            fmt::format("{:.4f}", row["min"].get<double>()),
            fmt::format("{:.4f}", row["max"].get<double>()),
            fmt::format("{:.0f} %", 100 * row["in_band"].get<double>()),
            fmt::format("{:.3f}", row["ms"].get<double>()),
            fmt::format("{:.0f}", row["flop_per_s"].get<double>() / 1e9),
            fmt::format("{:.0f} %", 100 * row["share_of_gemm_peak"].get<double>())};
}

}  // namespace

int bench_orthogonalize(int argc, char** argv) {
    cxxopts::Options specification("speedrun bench orthogonalize",
                                   "Singular values of the result and time, by shape, conditioning, method "
                                   "and iterations");
    auto add = specification.add_options();
    add("shape", "ROWSxCOLS; may be given several times",
        cxxopts::value<std::vector<std::string>>()->default_value("256x1024"));
    add("condition", "largest / smallest singular value of the input; 0: normal numbers",
        cxxopts::value<std::vector<double>>());
    add("dtype", "of the iteration: bf16 or fp32 (the preconditioner's is always fp32)",
        cxxopts::value<std::string>()->default_value("bf16"));
    add("threads", "0: the cores this process may use", cxxopts::value<std::string>()->default_value("0"));
    add("json", "one JSON object a line instead of a table");
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const auto& options = *parsed;
    const auto dtype = options["dtype"].as<std::string>();
    if (dtype != "bf16" && dtype != "fp32")
        throw UserError("bench orthogonalize: --dtype \"" + dtype + "\"; allowed: bf16, fp32");
    auto conditions = value_or_empty<std::vector<double>>(options, "condition");
    if (conditions.empty()) conditions = {0, 10, 1e3, 1e5};
    for (const double condition : conditions)
        if (!(condition == 0 || (condition >= 1 && condition <= 1e12)))
            throw UserError("bench orthogonalize: --condition is 0, or 1 to 1e12");
    RuntimeConfig runtime;
    runtime.threads = whole<int64_t>(options, "threads");
    set_threads(runtime);
    const double bf16_peak = measure_gemm_peak(at::kBFloat16, at::kCPU),
                 fp32_peak = measure_gemm_peak(at::kFloat, at::kCPU);
    TextTable table{{"shape, method", "iters", "dtype", "condition", "min", "max", "in [0.7, 1.2]", "ms each",
                     "GFLOP/s", "of GEMM"}};
    const bool json = options.count("json") > 0;
    for (const std::string& text : options["shape"].as<std::vector<std::string>>())
        for (const Way& way : ways(dtype == "bf16" ? Dtype::bf16 : Dtype::fp32)) {
            const bool narrow = way.config.orthogonalize.dtype == Dtype::bf16;
            const Json rows = measure(parse_shape(text), way, conditions, narrow ? bf16_peak : fp32_peak);
            for (const Json& row : rows)
                json ? void(std::puts(row.dump().c_str())) : table.push_back(cells(row));
        }
    if (json) return 0;
    std::fputs(plain_table(table).c_str(), stdout);
    std::printf("GEMM peak on %d threads: bf16 %.0f GFLOP/s, fp32 %.0f GFLOP/s\n", at::get_num_threads(),
                bf16_peak / 1e9, fp32_peak / 1e9);
    return 0;
}

}  // namespace speedrun

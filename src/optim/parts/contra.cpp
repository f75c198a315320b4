// Contra-Muon, https://github.com/nilin/contra-muon: X <- X - contra * u / max(sigma, 1e-10), then as long as
// before, where sigma is u's largest singular value as five power iterations from ones find it.
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

constexpr int kIterations = 5;
constexpr double kLeastNorm = 1e-10;

at::Tensor unit(const at::Tensor& v) {
    return v / of_matrices(ops::matrix_norms(v)).clamp_min(kLeastNorm);
}

// [n, 1, 1], fp32
at::Tensor largest_singular_values(const at::Tensor& u) {
    at::Tensor v = unit(at::ones({u.size(0), u.size(2), 1}, u.options()));
    for (int i = 0; i < kIterations; ++i) v = unit(u.mT().matmul(unit(u.matmul(v))));
    return of_matrices(ops::matrix_norms(u.matmul(v))).clamp_min(kLeastNorm);
}

class Contra final : public PipelinePart {
  public:
    explicit Contra(const MatrixRuleInput& input) : share_(input.config.contra) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        work_bytes_ = 3 * 4 * rows * cols;
    }

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor& u = work.direction;
        const at::Tensor x = work.u.to(at::kFloat), other = x - u * (share_ / largest_singular_values(u));
        const at::Tensor longer = ops::matrix_norms(x) / ops::matrix_norms(other).clamp_min(kLeastNorm);
        work.u = other * of_matrices(longer);
    }
    bool reads_fp32() const override { return true; }
    RuleCost cost() const override { return {.work_bytes = work_bytes_}; }

  private:
    double share_;
    int64_t work_bytes_;
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("contra")>(
    const MatrixRuleInput& input) {
    return std::make_unique<Contra>(input);
}

}  // namespace speedrun

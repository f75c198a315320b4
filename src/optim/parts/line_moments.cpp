// A second moment of each row or column, which ops::apply_matrix_update takes.
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"
#include "util/error.h"

namespace speedrun {
namespace {

class LineMoments final : public PipelinePart {
  public:
    explicit LineMoments(const MatrixRuleInput& input) {
        const auto& [matrices, rows, cols] = input.row.matrix_view;
        const int64_t dim = input.row.var_reduce_dim;
        check(dim == -1 || dim == -2, input.row.param + ": var_reduce_dim is neither -1 nor -2");
        const bool wide = input.part.config.master == ParamConfig::Master::mantissa;
        const auto options = input.part.value.options();
        second_moment_ = at::zeros({matrices, dim == -2 ? 1 : rows, dim == -2 ? cols : 1},
                                   wide ? options.dtype(at::kFloat) : options);
    }

    void apply(PipelineWork& work, const PartStep&) override { work.second_moment = work.of(second_moment_); }
    std::vector<StateTensor> state() const override { return {{"second_moment", second_moment_}}; }

  private:
    at::Tensor second_moment_;  // [n, 1, cols] or [n, rows, 1], of the master's dtype
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("line_moments")>(
    const MatrixRuleInput& input) {
    return std::make_unique<LineMoments>(input);
}

}  // namespace speedrun

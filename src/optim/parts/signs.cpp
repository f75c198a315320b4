// The signs of other numbers: OGSignMuon of MuonVariants takes the gradient's. 0 where those are 0.
#include <ATen/ATen.h>

#include "optim/parts/part.h"
#include "optim/parts/table.h"

namespace speedrun {
namespace {

class Signs final : public PipelinePart {
  public:
    explicit Signs(MatrixConfig::Signs kind) : kind_(kind) {}

    void apply(PipelineWork& work, const PartStep&) override {
        const at::Tensor& of = reads_gradient() ? work.grad : work.direction;
        work.u = work.u.abs().mul_(of.sign());
    }
    bool reads_gradient() const override { return kind_ == MatrixConfig::Signs::gradient; }

  private:
    MatrixConfig::Signs kind_;
};

}  // namespace

template <>
std::unique_ptr<PipelinePart> make_pipeline_part<pipeline_part_index("signs")>(const MatrixRuleInput& input) {
    return std::make_unique<Signs>(input.config.signs);
}

}  // namespace speedrun

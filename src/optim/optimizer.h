#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "model/parameters.h"
#include "optim/adam.h"
#include "optim/normuon.h"
#include "optim/schedule.h"

namespace speedrun {

// A piece of the optimizer's state, sharing its memory: copy_ into `tensor` restores it.
struct NamedTensor {
    std::string name;
    at::Tensor tensor;
};

// All update rules of a run and their state, over a table that must outlive it.
class Optimizer {
  public:
    Optimizer(const Config& config, ParameterTable& table);

    // Updates values from the final (summed, divided, averaged) gradients: NorMuon's every time, Adam's when
    // settings.adam_steps. Gradients that were used are zero afterwards; Adam's stay, to be added to, when it
    // does not step. Compute copies of what changed are refreshed.
    void step(const StepSettings& settings);

    // Forgets everything: the state is that of a new optimizer.
    void reset();

    // "attn_qkvo.momentum", "attn_qkvo.second_moment", "embed.exp_avg", "embed.exp_avg_sq", ..., and
    // "adam.step", int64 [1]: Adam's steps so far. In the table's order, each once.
    std::vector<NamedTensor> state() const;

  private:
    ParameterTable& table_;
    std::map<std::string, NorMuon> normuon_;
    std::map<std::string, Adam> adam_;
    at::Tensor adam_step_;
};

}  // namespace speedrun

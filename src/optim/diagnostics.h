#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "config/config.h"
#include "model/parameters.h"

namespace speedrun {

// What one step did to one matrix.
struct MatrixDiagnostics {
    std::string name;  // the reference's name, with [k] where an entry there is several matrices (q, k, v, o)
    double rms = 0;    // of the parameter after the step
    double update_rms = 0;  // of the step: value after - value before
    double condition =
        0;  // largest / smallest singular value of the step; infinity if it is singular, NaN if it is 0
};

// Measures steps of the matrices that the rule of matrices updates. Costs a copy of them and their singular
// values in fp64: construct it before the steps to look at, only.
class StepDiagnostics {
  public:
    StepDiagnostics(const Config& config, const ParameterTable& table);  // keeps a copy of the values

    // What happened since construction or the last call.
    std::vector<MatrixDiagnostics> measure();

  private:
    struct Watched {
        const Parameter* parameter;
        std::vector<int64_t> matrices;  // [n, rows, cols]
        at::Tensor before;
    };
    std::vector<Watched> watched_;
};

}  // namespace speedrun

#pragma once
// Graphs on a CPU: what is captured is the function itself, with all that it holds by value as it was then.
// It runs again at each launch, so that a number which should have been read from memory is an old one.
#include <functional>
#include <memory>
#include <utility>

#include "ops/cuda/graph.h"

namespace speedrun {

class FunctionGraphs final : public cuda::Graphs {
  public:
    std::unique_ptr<cuda::Graph> make() override { return std::make_unique<Captured>(*this); }

    int64_t captured = 0, launched = 0;

  private:
    class Captured final : public cuda::Graph {
      public:
        explicit Captured(FunctionGraphs& all) : all_(all) {}
        void capture(const std::function<void()>& work) override {
            work_ = work;
            ++all_.captured;
        }
        void launch() override {
            work_();
            ++all_.launched;
        }
        int64_t kernels() const override { return 1; }

      private:
        FunctionGraphs& all_;
        std::function<void()> work_;
    };
};

}  // namespace speedrun

#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "ops/cuda/graph.h"

namespace speedrun {

// Graphs that count what their launches start.
class CountedGraphs final : public cuda::Graphs {
  public:
    explicit CountedGraphs(std::shared_ptr<cuda::Graphs> graphs) : graphs_(std::move(graphs)) {}
    std::unique_ptr<cuda::Graph> make() override { return std::make_unique<Counted>(*this, graphs_->make()); }

    int64_t launches() const { return launches_; }
    int64_t kernels() const { return kernels_; }

  private:
    class Counted final : public cuda::Graph {
      public:
        Counted(CountedGraphs& all, std::unique_ptr<cuda::Graph> graph)
            : all_(all), graph_(std::move(graph)) {}
        void capture(const std::function<void()>& work) override { graph_->capture(work); }
        void launch() override {
            graph_->launch();
            ++all_.launches_;
            all_.kernels_ += graph_->kernels();
        }
        int64_t kernels() const override { return graph_->kernels(); }

      private:
        CountedGraphs& all_;
        std::unique_ptr<cuda::Graph> graph_;
    };

    std::shared_ptr<cuda::Graphs> graphs_;
    int64_t launches_ = 0, kernels_ = 0;
};

}  // namespace speedrun

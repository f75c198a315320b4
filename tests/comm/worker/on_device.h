#pragma once
// Lets the tests of CPU collectives run on a GPU: every tensor travels there and, when the result is waited
// for, back.
#include <ATen/ATen.h>
#include <dlfcn.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "comm/communicator.h"

namespace speedrun {

class CopiedBack final : public Pending {
  public:
    CopiedBack(Handle inner, at::Tensor from, at::Tensor to)
        : inner_(std::move(inner)), from_(std::move(from)), to_(std::move(to)) {}
    void wait() override {
        inner_->wait();
        to_.copy_(from_);
    }

  private:
    Handle inner_;
    at::Tensor from_, to_;
};

class OnDevice final : public Communicator {
  public:
    OnDevice(std::unique_ptr<Communicator> inner, at::Device device)
        : inner_(std::move(inner)), device_(device) {}
    int64_t rank() const override { return inner_->rank(); }
    int64_t world_size() const override { return inner_->world_size(); }
    Handle reduce_scatter(const at::Tensor& tensor, std::span<const int64_t> counts,
                          std::string_view label) override {
        const at::Tensor there = tensor.to(device_);
        return back(inner_->reduce_scatter(there, counts, label), there, tensor);
    }
    Handle all_gather(const at::Tensor& tensor, std::span<const int64_t> counts,
                      std::string_view label) override {
        const at::Tensor there = tensor.to(device_);
        return back(inner_->all_gather(there, counts, label), there, tensor);
    }
    Handle all_reduce(const at::Tensor& tensor, ReduceOp op, std::string_view label) override {
        const at::Tensor there = tensor.to(device_);
        return back(inner_->all_reduce(there, op, label), there, tensor);
    }
    Handle broadcast(const at::Tensor& tensor, int64_t root, std::string_view label) override {
        const at::Tensor there = tensor.to(device_);
        return back(inner_->broadcast(there, root, label), there, tensor);
    }
    Handle all_to_all(const at::Tensor& sent, std::span<const int64_t> send_counts,
                      const at::Tensor& received, std::span<const int64_t> receive_counts,
                      std::string_view label) override {
        const at::Tensor there = received.to(device_);
        return back(inner_->all_to_all(sent.to(device_), send_counts, there, receive_counts, label), there,
                    received);
    }
    void barrier(std::string_view label) override { inner_->barrier(label); }
    CommStats stats() const override { return inner_->stats(); }
    void observe(CollectiveObserver* observer) override { inner_->observe(observer); }

  private:
    static Handle back(Handle inner, const at::Tensor& from, const at::Tensor& to) {
        return std::make_unique<CopiedBack>(std::move(inner), from, to);
    }
    std::unique_ptr<Communicator> inner_;
    at::Device device_;
};

// The CUDA half of LibTorch, which nothing here is linked to; its kernels register themselves when it is
// loaded.
inline void load_cuda_half() {
    if (!dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL))
        throw std::runtime_error(std::string("libtorch_cuda.so: ") + dlerror());
}

}  // namespace speedrun

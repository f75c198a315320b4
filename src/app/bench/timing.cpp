#include "app/bench/timing.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <random>

#include "ops/cuda/gpu.h"

namespace speedrun {

double median(std::vector<double> values) {
    std::ranges::sort(values);
    return values[values.size() / 2];
}

Moment::Moment(at::Device device) {
    if (device.is_cpu()) {
        time_ = std::chrono::steady_clock::now();
        return;
    }
    event_.emplace(device.type(), c10::EventFlag::BACKEND_DEFAULT);  // the kind that can be timed
    event_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

double Moment::ms_since(const Moment& earlier) const {
    if (!event_) return std::chrono::duration<double, std::milli>(time_ - earlier.time_).count();
    event_->synchronize();
    return earlier.event_->elapsedTime(*event_);
}

double time_call(const std::function<void()>& call, at::Device device, double budget_ms) {
    constexpr double kBatchMs = 5;
    const auto batch_ms = [&](int64_t calls) {
        const Moment start(device);
        for (int64_t i = 0; i < calls; ++i) call();
        return Moment(device).ms_since(start) / static_cast<double>(calls);
    };
    batch_ms(2);
    const double once = std::max(batch_ms(1), 1e-4);
    const auto calls =
        static_cast<int64_t>(std::clamp(std::ceil(std::min(kBatchMs, budget_ms / 3) / once), 1.0, 500.0));
    const double batches = std::clamp(budget_ms / (once * static_cast<double>(calls)), 3.0, 25.0);
    std::vector<double> each;
    for (int64_t i = 0; i < static_cast<int64_t>(batches); ++i) each.push_back(batch_ms(calls));
    return median(std::move(each));
}

std::optional<int64_t> kernels_of(const std::function<void()>& call, at::Device device) {
    if (!device.is_cuda()) return 0;
    const auto graphs = ops::cuda::make_graphs();
    const auto graph = graphs->make();
    try {
        graph->capture(call);
    } catch (const std::exception&) {
        return std::nullopt;
    }
    return graph->kernels();
}

Batch synthetic_batch(const Config& config, int64_t tokens, int64_t document) {
    std::mt19937_64 random(1);
    std::uniform_int_distribution<int32_t> token(0, static_cast<int32_t>(config.data.vocab_size) - 1);
    Batch batch;
    for (int64_t t = 0; t < tokens; ++t) {
        batch.inputs.push_back(token(random));
        batch.targets.push_back(token(random));
        if (t % document == 0) batch.cu_seqlens.push_back(static_cast<int32_t>(t));
    }
    batch.cu_seqlens.push_back(static_cast<int32_t>(tokens));
    return batch;
}

}  // namespace speedrun

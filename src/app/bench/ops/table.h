#pragma once
// The ops of a training step, one row each: how often, how long, and how long they must at least take.
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace speedrun {

struct Op {
    std::string name;     // "linear.forward", "matrix.mlp_bank.momentum"
    std::string shape;    // in words
    double per_step = 0;  // calls in a step
    // The op that it is a part of, timed alone: there, it may share its pass over memory. A step's time
    // counts that one only.
    std::string within = {};
    double flop = 0;   // of a call's products
    double bytes = 0;  // that a call must read and write at least
    // Makes tensors for it, which what is returned keeps: that is one call.
    std::function<std::function<void()>()> prepare = {};
};

// What the machine was measured to do.
struct MachineRates {
    double flops = 0;      // a second, in products of the activations' dtype
    double bandwidth = 0;  // bytes/s that a copy reads and writes
};

// The longer of its arithmetic's and its memory's time.
double floor_ms(const Op& op, const MachineRates& rates);

struct TimedOp {
    Op op;
    double ms = 0;                       // of a call
    std::optional<int64_t> kernels = 0;  // of a call on a GPU; nothing: they cannot be counted
};

struct StepSum {
    double ms = 0, floor_ms = 0;
    double kernels = 0;  // of those that can be counted
};
// Of all calls of a step.
StepSum sum_of_step(std::span<const TimedOp> ops, const MachineRates& rates);

// A line an op, then the step's sum.
std::string ops_text(std::span<const TimedOp> ops, const MachineRates& rates);
// "ops" and "step" for programs.
nlohmann::ordered_json ops_json(std::span<const TimedOp> ops, const MachineRates& rates);

}  // namespace speedrun

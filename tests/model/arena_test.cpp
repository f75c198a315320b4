#include "model/arena.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace speedrun {
namespace {

constexpr int64_t kKiB = 1024;

TEST(Arena, OtherShapesTakeTurnsWithTheSameBytes) {
    Arena arena(at::kCPU);
    arena.reserve(8 * kKiB);
    const at::Tensor first = arena.acquire({4, 256}, at::kFloat), second = arena.acquire({1024}, at::kFloat);
    const void* const begin = first.const_data_ptr();
    EXPECT_EQ(second.const_data_ptr<float>() - first.const_data_ptr<float>(), 1024);
    arena.release(first);
    arena.release(second);
    EXPECT_EQ(arena.acquire({2, 2048}, at::kBFloat16).const_data_ptr(), begin);  // joined again
    EXPECT_EQ(arena.allocated_bytes(), 8 * kKiB);
}

TEST(Arena, WhatDoesNotFitIsAllocatedOnce) {
    Arena arena(at::kCPU);
    arena.reserve(kKiB);
    const at::Tensor fits = arena.acquire({256}, at::kFloat);
    at::Tensor other = arena.acquire({100}, at::kFloat);
    EXPECT_EQ(arena.allocated_bytes(), kKiB + 400);
    const void* const place = other.const_data_ptr();
    arena.release(std::exchange(other, {}));
    EXPECT_EQ(arena.acquire({100}, at::kFloat).const_data_ptr(), place);
    EXPECT_EQ(arena.allocated_bytes(), kKiB + 400);
}

// Any order of taking and giving back: no two tensors share a byte, and a piece of what the meta device has
// counted is enough.
TEST(Arena, RandomOrders) {
    const std::vector<at::ScalarType> dtypes{at::kFloat, at::kBFloat16, at::kDouble, at::kByte};
    for (unsigned seed = 0; seed < 20; ++seed) {
        Arena counted(at::kMeta), real(at::kCPU);
        for (const bool meta : {true, false}) {
            if (!meta) real.reserve(counted.allocated_bytes());
            Arena& arena = meta ? counted : real;
            std::mt19937 random(seed);
            std::vector<at::Tensor> live;
            for (int i = 0; i < 300; ++i) {
                if (!live.empty() && random() % 5 < 2) {
                    std::swap(live[random() % live.size()], live.back());
                    arena.release(std::move(live.back()));
                    live.pop_back();
                } else {
                    const auto rows = static_cast<int64_t>(1 + random() % 50);
                    live.push_back(arena.acquire({rows, 7}, dtypes[random() % dtypes.size()]));
                    if (!meta) live.back().fill_(i % 100);
                }
            }
            for (at::Tensor& tensor : live) {
                if (!meta) {
                    EXPECT_TRUE(tensor.eq(tensor.flatten()[0]).all().item<bool>());
                }
                arena.release(std::move(tensor));
            }
        }
        EXPECT_EQ(real.allocated_bytes(), counted.allocated_bytes());
    }
}

}  // namespace
}  // namespace speedrun

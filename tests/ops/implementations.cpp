#include "ops/implementations.h"

#include <gtest/gtest.h>

namespace speedrun::ops::testing {

bool have_gpu() {
    static const bool found = [] {
        if (!cuda::have_backend() || !cuda::have_driver()) return false;
        cuda::load_backend();
        return at::hasCUDA();
    }();
    return found;
}

TEST(Gpu, KernelsRunOnIt) {
    if (!have_gpu())
        GTEST_SKIP() << "needs an NVIDIA GPU: the tests of the ops went through emulated kernels only";
}

// With LibTorch's CUDA half and all that it needs, on a machine without a GPU too.
TEST(Gpu, ModuleLoads) {
    if (!cuda::have_backend()) GTEST_SKIP() << "built without CUDA's compiler";
    EXPECT_NO_THROW(cuda::load_backend());
}

TEST(DeviceCopies, KeepStridesAndSharedMemory) {
    const at::Tensor whole = at::arange(12, at::kFloat).view({3, 4}), left = whole.narrow(1, 0, 2),
                     row = whole[1];
    DeviceCopies copies(at::kCPU);
    const at::Tensor left_copy = copies(left), row_copy = copies(row);
    EXPECT_EQ(left_copy.strides(), left.strides());
    left_copy.mul_(10);
    EXPECT_EQ(row_copy[1].item<float>(), 50);
    EXPECT_EQ(row[1].item<float>(), 5);
    copies.back();
    EXPECT_EQ(row[1].item<float>(), 50);
    EXPECT_EQ(row[2].item<float>(), 6);
}

}  // namespace speedrun::ops::testing

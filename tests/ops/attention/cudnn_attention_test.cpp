// What of cuDNN's attention needs no GPU: the shapes of its graphs, where documents lie, and what cuDNN says
// to each graph. What it computes is in attention_test.cpp.
#include "ops/attention/cudnn_attention.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "ops/attention/attention_layout.h"
#include "ops/implementations.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using speedrun::cuda::AttentionShape;

AttentionMask mask_of(const std::vector<int32_t>& starts, int64_t window, int64_t longest) {
    return {at::tensor(starts, at::TensorOptions(at::kInt)), window, longest};
}

// Slices of one buffer [tokens, count, heads, head_dim].
std::vector<at::Tensor> tensors(int64_t count, int64_t tokens, int64_t heads, int64_t head_dim) {
    return at::empty({tokens, count, heads, head_dim}, at::kBFloat16).unbind(1);
}

TEST(CudnnAttention, ShapeIsThatOfTensorsAndMask) {
    const AttentionShape shape =
        cuda::attention_shape(tensors(4, 700, 3, 64), mask_of({0, 10, 700, 700}, 64, 690));
    EXPECT_EQ(shape.tokens, 700);
    EXPECT_EQ(shape.heads, 3);
    EXPECT_EQ(shape.head_dim, 64);
    EXPECT_EQ(shape.documents, 3);
    EXPECT_EQ(shape.longest, 1024);
    EXPECT_EQ(shape.window, 64);
    EXPECT_FALSE(shape.backward);
    constexpr int64_t row = 4 * 3 * 64;
    EXPECT_EQ(shape.strides, (std::array<int64_t, 8>{row, row, row, row, 0, 0, 0, 0}));
    EXPECT_TRUE(cuda::attention_shape(tensors(8, 700, 3, 64), mask_of({0, 700}, 64, 0)).backward);
}

// Graphs are kept by shape: batches of a stage differ in where documents begin, and share one.
TEST(CudnnAttention, ShapesAreEqualWhereOneGraphDoes) {
    const auto of = [](const std::vector<int32_t>& starts, int64_t window, int64_t longest,
                       int64_t head_dim = 128) {
        return cuda::attention_shape(tensors(4, 4096, 2, head_dim), mask_of(starts, window, longest));
    };
    const AttentionShape shape = of({0, 100, 2148, 4096}, 384, 2048);
    EXPECT_EQ(shape, of({0, 1500, 2500, 4096}, 384, 1596));
    EXPECT_NE(shape, of({0, 100, 2148, 4096}, 128, 2048));
    EXPECT_NE(shape, of({0, 2048, 4096}, 384, 2048));
    EXPECT_NE(shape, of({0, 100, 2000, 4096}, 384, 2096));
    EXPECT_NE(shape, of({0, 100, 2148, 4096}, 384, 2048, 64));
    EXPECT_NE(shape, cuda::attention_shape(std::vector<at::Tensor>(4, tensors(3, 4096, 2, 128)[0]),
                                           mask_of({0, 100, 2148, 4096}, 384, 2048)));  // other strides
    // Windows that hold a whole document are one, as are unknown lengths and that of the sequence.
    EXPECT_EQ(of({0, 4096}, 4095, 4096), of({0, 4096}, 100000, 0));
    EXPECT_NE(of({0, 4096}, 4095, 4096), of({0, 4096}, 4094, 4096));
    EXPECT_EQ(of({0, 1, 4096}, 8, 1).longest, 128);
}

TEST(CudnnAttention, RefusesWhatItWasNotMadeFor) {
    const AttentionMask mask = mask_of({0, 50}, 8, 0);
    EXPECT_THROW(cuda::attention_shape(tensors(4, 50, 2, 80), mask), InternalError);
    EXPECT_THROW(cuda::attention_shape(tensors(5, 50, 2, 64), mask), InternalError);
    std::vector<at::Tensor> turned = tensors(4, 50, 50, 64);
    turned[1] = turned[1].transpose(0, 1);
    EXPECT_THROW(cuda::attention_shape(turned, mask), InternalError);
    try {
        const cuda::CudnnAttention made(at::kCPU);
        ADD_FAILURE() << "made on a CPU";
    } catch (const UserError& error) {
        EXPECT_STREQ(
            error.what(),
            "runtime.attention \"cudnn\" needs an NVIDIA GPU, and this run is on cpu; allowed there: "
            "\"flash\"");
    }
}

void expect_layout(const cuda::Gpu& gpu, at::Device device) {
    // More documents than a block has threads; runs of empty ones; an offset beyond 32 bits.
    const at::Tensor lengths = at::randint(0, 3, {1000}, at::kInt) * at::randint(0, 400, {1000}, at::kInt);
    const at::Tensor cu = at::cat({at::zeros({1}, at::kLong), lengths.cumsum(0)}).to(at::kInt);
    const std::vector<int64_t> strides = {768, 0, 2304, 1, int64_t{1} << 30};
    const auto [found_lengths, offsets] = cuda::attention_layout(gpu, cu.to(device), strides);
    EXPECT_TRUE(found_lengths.cpu().equal(lengths));
    EXPECT_TRUE(offsets.cpu().equal(at::outer(at::tensor(strides), cu.to(at::kLong))));
}

TEST(CudnnAttention, LayoutIsLengthsAndStarts) {
    at::manual_seed(12);
    expect_layout(testing::emulated_gpu(), at::kCPU);
    if (testing::have_gpu()) expect_layout(testing::real_gpu(), at::kCUDA);
}

// The lines that ops_cudnn_plans prints; none where this machine cannot ask, with the reason in `why`.
std::vector<std::string> ask(const std::vector<std::string>& graphs, std::string& why) {
    const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    std::string command = (folder / "ops_cudnn_plans").string();
    for (const std::string& graph : graphs) command += " " + graph;
    FILE* const pipe = ::popen((command + " 2>&1").c_str(), "r");
    std::string text(1 << 16, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), pipe));
    const int status = ::pclose(pipe);
    if (status != 0) {
        EXPECT_EQ(WEXITSTATUS(status), 4) << text;
        why = text;
        return {};
    }
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    EXPECT_EQ(lines.size(), graphs.size()) << text;
    return lines;
}

// cuDNN itself says whether it has an engine for a graph on Hopper: every window of record 43's schedule,
// forward and backward; documents of training (at most 2048 tokens) and of validation (any length).
TEST(CudnnAttention, CudnnHasAnEngineForEveryGraph) {
    std::vector<std::string> graphs;
    for (const std::string pass : {"90 forward ", "90 backward "}) {
        for (const int blocks : {1, 3, 5, 6, 7, 11, 13, 20})
            graphs.push_back(pass + "32768 6 128 127 2048 " + std::to_string(128 * blocks));
        for (const char* other : {"65536 6 128 255 65536 2560", "65536 6 128 255 65536 65535",
                                  "2048 4 64 127 1024 128", "37 2 64 1 128 0"})
            graphs.push_back(pass + other);
    }
    std::string why;
    const std::vector<std::string> plans = ask(graphs, why);
    if (plans.empty()) GTEST_SKIP() << why;
    for (size_t i = 0; i < plans.size(); ++i) {
        EXPECT_FALSE(plans[i].starts_with("refused")) << graphs[i] << ": " << plans[i];
        EXPECT_NE(plans[i], "0") << graphs[i];
    }
}

// That the answer above depends on the question.
TEST(CudnnAttention, CudnnHasNoEngineForOtherGraphs) {
    std::string why;
    const std::vector<std::string> plans =
        ask({"90 backward 32768 6 1024 127 2048 128", "90 forward 32768 6 12 127 2048 128",
             "80 backward 32768 6 128 127 2048 128"},
            why);
    if (plans.empty()) GTEST_SKIP() << why;
    for (const std::string& line : plans)
        EXPECT_TRUE(line.starts_with("refused: cuDNN's attention: ")) << line;
}

}  // namespace
}  // namespace speedrun::ops

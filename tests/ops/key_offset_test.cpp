#include "ops/key_offset.h"

#include "implementations.h"
#include "row_op_testing.h"

namespace speedrun::ops {
namespace {

using namespace testing;

const std::vector<std::pair<int64_t, int64_t>> sizes = {{1, 24}, {2, 24}, {7, 96}, {33, 192}, {2100, 24}};
constexpr int64_t kHeads = 3;

at::Tensor heads_of(const at::Tensor& x) {
    return x.as_strided({x.size(0), kHeads, x.size(1) / kHeads}, {x.stride(0), x.size(1) / kHeads, 1},
                        x.storage_offset());
}

// None, one that ends with the head, record 49's two.
template <class Body>
void for_each_channels(const Body& body) {
    for_each_setting(sizes, [&](const Setting& s) {
        const int64_t d = s.d / kHeads;
        body(s, std::vector<HeadChannels>{});
        body(s, std::vector<HeadChannels>{{d / 2, d}});
        body(s, std::vector<HeadChannels>{{d / 4, d / 2}, {3 * d / 4, d}});
    });
}

at::Tensor formula(const at::Tensor& x, const std::vector<HeadChannels>& channels) {
    at::Tensor moves = at::zeros({x.size(2)}, at::kBool);
    for (const auto& [begin, end] : channels) moves.narrow(0, begin, end - begin).fill_(true);
    const at::Tensor before = at::cat({x.narrow(0, 0, 1), x.narrow(0, 0, x.size(0) - 1)});
    return at::where(moves, before, x);
}

TEST(KeyOffset, TakesChannelsFromTheTokenBefore) {
    for (const auto& op : implementations<&key_offset, &reference::key_offset, &cuda::key_offset>()) {
        SCOPED_TRACE(op.name);
        for_each_channels([&](const Setting& s, const std::vector<HeadChannels>& channels) {
            const Buffer x = s.buffer(), y = s.buffer();
            op(heads_of(x.view), channels, heads_of(y.view));
            EXPECT_TRUE(at::equal(heads_of(y.view), formula(heads_of(x.view), channels)));
            EXPECT_TRUE(y.rest_untouched());
        });
    }
}

TEST(KeyOffset, BackwardIsTheGradient) {
    for (const auto& op : implementations<&key_offset_backward, &reference::key_offset_backward,
                                          &cuda::key_offset_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_channels([&](const Setting& s, const std::vector<HeadChannels>& channels) {
            const Buffer dy = s.buffer(), dx = s.buffer();
            const at::Tensor in = at::zeros(heads_of(dy.view).sizes(), at::kDouble).requires_grad_(true);
            formula(in, channels).backward(wide(heads_of(dy.view)));
            op(heads_of(dy.view), channels, heads_of(dx.view));
            // One sum of two at most, of numbers whose sum may be smaller than they are.
            const at::Tensor slack = at::full({}, s.arithmetic() * 2 * dy.view.abs().max().item<double>());
            expect_within(heads_of(dx.view), in.grad(), in.grad().abs() * s.store() + slack, "dx");
            EXPECT_TRUE(dx.rest_untouched());
        });
    }
}

}  // namespace
}  // namespace speedrun::ops

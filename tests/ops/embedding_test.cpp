#include "ops/embedding.h"

#include "implementations.h"
#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t vocabulary = 50;

// Half of the tokens share three ids; row 49 is never named.
at::Tensor some_ids(int64_t tokens) {
    const at::Tensor often = at::randint(3, {tokens}, at::kInt),
                     rare = at::randint(vocabulary - 1, {tokens}, at::kInt);
    return at::where(at::rand({tokens}) < 0.5, often, rare);
}

TEST(Embedding, GathersRows) {
    for (const auto& op : implementations<&embedding, &reference::embedding, &cuda::embedding>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            const Buffer table(vocabulary, s.d, at::kBFloat16, s.strided), out = s.buffer();
            const at::Tensor ids = some_ids(s.tokens);
            op(table.view, ids, out.view);
            EXPECT_TRUE(at::equal(out.view, table.view.index_select(0, ids).to(s.dtype)));
            EXPECT_TRUE(out.rest_untouched());
        });
    }
}

TEST(Embedding, RoundsAnFp32Table) {
    const at::Tensor table = at::randn({vocabulary, 20}), out = at::empty({9, 20}, at::kBFloat16);
    const at::Tensor ids = some_ids(9);
    embedding(table, ids, out);
    EXPECT_TRUE(at::equal(out, table.index_select(0, ids).to(at::kBFloat16)));
}

TEST(Embedding, BackwardAddsRowsOfOneIdOnce) {
    for (const auto& op :
         implementations<&embedding_backward, &reference::embedding_backward, &cuda::embedding_backward>()) {
        SCOPED_TRACE(op.name);
        for_each_setting({{1, 12}, {7, 20}, {33, 131}, {2100, 8}, {20, 1100}}, [&](const Setting& s) {
            for (const auto table_type : {s.saved(), at::kBFloat16}) {
                const Buffer dout = s.buffer(), dtable(vocabulary, s.d, table_type, s.strided);
                const at::Tensor ids = some_ids(s.tokens), before = wide(dtable.view);
                op(dout.view, ids, dtable.view);

                const at::Tensor table = leaf(before);
                table.index_select(0, ids).backward(wide(dout.view));
                const at::Tensor expected = before + table.grad();
                const at::Tensor magnitudes = before.abs().index_add(0, ids, wide(dout.view).abs());
                const at::Tensor uses = at::bincount(ids, {}, vocabulary).unsqueeze(-1).to(at::kDouble);
                const at::Tensor bound =
                    expected.abs() * store_unit(table_type) + s.arithmetic() * (uses + 1) * magnitudes;
                expect_within(dtable.view, expected, bound, "dtable");
                EXPECT_TRUE(at::equal(wide(dtable.view)[vocabulary - 1], before[vocabulary - 1]));
                EXPECT_TRUE(dtable.rest_untouched());
            }
        });
    }
}

// Ids in runs that end at, before and behind multiples of the kernels' chunks of 32 tokens, and one id
// everywhere. Sums of small whole numbers are exact.
TEST(Embedding, BackwardSumsLongRuns) {
    std::vector<std::vector<int64_t>> cases = {{3000}, {32}, {64, 32, 31, 1, 33, 96, 95, 97, 5, 27, 200}};
    for (const auto& op :
         implementations<&embedding_backward, &reference::embedding_backward, &cuda::embedding_backward>()) {
        for (const std::vector<int64_t>& runs : cases) {
            SCOPED_TRACE(op.name + ", first run " + std::to_string(runs.front()));
            const at::Tensor counts = at::tensor(runs);
            const at::Tensor sorted = at::repeat_interleave(at::arange(counts.size(0), at::kLong), counts);
            const at::Tensor ids = sorted.index_select(0, at::randperm(sorted.size(0))).to(at::kInt);
            const at::Tensor dout = at::randint(-8, 9, {ids.size(0), 300}, at::kFloat);
            const at::Tensor dtable = at::full({vocabulary, 300}, 3.0);
            op(dout, ids, dtable);
            EXPECT_TRUE(at::equal(dtable, at::full({vocabulary, 300}, 3.0).index_add(0, ids, dout)));
        }
    }
}

// The kernels' sums, of which no two orders of fp32 numbers would give the same.
TEST(Embedding, KernelRepeatsLongRuns) {
    const at::Tensor dout = at::randn({2000, 40}), ids = at::zeros({2000}, at::kInt);
    const auto run = [&] {
        const at::Tensor dtable = at::zeros({vocabulary, 40});
        cuda::embedding_backward(emulated_gpu(), dout, ids, dtable);
        return dtable;
    };
    const at::Tensor first = run();
    EXPECT_TRUE(at::equal(run(), first));
    // Chunks of 32 in order, then their sums in order.
    at::Tensor expected = at::zeros({40});
    for (const at::Tensor& chunk : dout.split(32)) {
        at::Tensor sum = at::zeros({40});
        for (const at::Tensor& row : chunk.unbind()) sum = sum + row;
        expected = expected + sum;
    }
    EXPECT_TRUE(at::equal(first[0], expected));
}

// 1024 tokens of 2^-9 added to a bf16 row of ones: added one by one, each would be lost.
TEST(Embedding, BackwardSumsBeforeItRounds) {
    const at::Tensor dout = at::full({1024, 4}, std::ldexp(1.0, -9), at::kBFloat16);
    const at::Tensor dtable = at::ones({3, 4}, at::kBFloat16);
    embedding_backward(dout, at::ones({1024}, at::kInt), dtable);
    EXPECT_TRUE(at::equal(dtable[1], at::full({4}, 3.0, at::kBFloat16)));
    EXPECT_TRUE(at::equal(dtable[0], at::ones({4}, at::kBFloat16)));
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
    const at::Tensor table = at::randn({5, 4}), rows = at::randn({2, 4}), before = table.clone();
    for (const int32_t bad : {5, -1}) {
        const at::Tensor ids = at::tensor({0, bad}, at::kInt);
        EXPECT_THROW(embedding(table, ids, rows), InternalError);
        EXPECT_THROW(embedding_backward(rows, ids, table), InternalError);
    }
    EXPECT_TRUE(at::equal(table, before));
}

TEST(Embedding, IsRepeatable) {
    const Buffer dout(2000, 24, at::kBFloat16, true);
    const at::Tensor ids = some_ids(2000);
    expect_repeatable([&] {
        const at::Tensor dtable = at::zeros({vocabulary, 24}),
                         narrow = at::zeros({vocabulary, 24}, at::kBFloat16);
        embedding_backward(dout.view, ids, dtable);
        embedding_backward(dout.view, ids, narrow);
        return std::vector<at::Tensor>{dtable, narrow};
    });
}

}  // namespace
}  // namespace speedrun::ops

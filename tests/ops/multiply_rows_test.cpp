#include "ops/multiply_rows.h"

#include "implementations.h"
#include "row_op_testing.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

using namespace testing;

constexpr int64_t table_rows = 11;

TEST(MultiplyRows, IsTheProductRoundedOnce) {
    for (const auto& op :
         implementations<&multiply_rows, &reference::multiply_rows, &cuda::multiply_rows>()) {
        SCOPED_TRACE(op.name);
        for_each_setting(row_shapes, [&](const Setting& s) {
            for (const auto table_type : {s.saved(), at::kBFloat16}) {
                const Buffer from = s.buffer(), to = s.buffer(),
                             table(table_rows, s.d, table_type, s.strided);
                const at::Tensor ids = at::randint(table_rows, {s.tokens}, at::kInt);
                op(from.view, table.view, ids, to.view);
                const at::Tensor expected = wide(from.view) * wide(table.view).index_select(0, ids);
                expect_within(to.view, expected, expected.abs() * (s.store() + s.arithmetic()), "to");
                EXPECT_TRUE(to.rest_untouched());
            }
        });
    }
}

TEST(MultiplyRows, WorksInPlace) {
    for (const auto& op :
         implementations<&multiply_rows, &reference::multiply_rows, &cuda::multiply_rows>()) {
        SCOPED_TRACE(op.name);
        const Buffer x(33, 24, at::kBFloat16, true);
        const at::Tensor table = at::sign(at::randn({table_rows, 24})).to(at::kBFloat16),
                         ids = at::randint(table_rows, {33}, at::kInt);
        const at::Tensor expected = x.view * table.index_select(0, ids);  // signs round nothing
        op(x.view, table, ids, x.view);
        EXPECT_TRUE(at::equal(x.view, expected));
    }
}

TEST(MultiplyRows, RefusesAnIdOutsideOfTheTable) {
    const at::Tensor x = at::randn({2, 4}), table = at::randn({3, 4});
    EXPECT_THROW(multiply_rows(x, table, at::tensor({0, 3}, at::kInt), x), InternalError);
    EXPECT_THROW(multiply_rows(x, table, at::tensor({-1, 0}, at::kInt), x), InternalError);
}

}  // namespace
}  // namespace speedrun::ops

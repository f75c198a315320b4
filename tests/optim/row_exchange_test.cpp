#include "optim/row_exchange.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "support/golden_inputs.h"
#include "support/rank_threads.h"

namespace speedrun {
namespace {

using Json = nlohmann::json;
using Rows = std::vector<int32_t>;

// Of every rank, ceil(rows / ranks) rows each, the last ones fewer or none.
std::vector<int64_t> owners(int64_t rows, int64_t ranks) {
    const int64_t most = (rows + ranks - 1) / ranks;
    std::vector<int64_t> owned;
    for (int64_t rank = 0; rank < ranks; ++rank)
        owned.push_back(std::clamp<int64_t>(rows - rank * most, 0, most));
    return owned;
}

at::Tensor own_part(const at::Tensor& grad, const std::vector<int64_t>& owned, int64_t rank) {
    return grad.narrow(0, std::reduce(owned.begin(), owned.begin() + rank), owned[static_cast<size_t>(rank)]);
}

// Rows that a rank looks up, some of them twice, and more of the first rows than of the last.
Rows some_rows(int64_t rank, int64_t table, size_t count, int64_t round) {
    const golden::Uniform uniform("rows " + std::to_string(rank) + " " + std::to_string(round));
    Rows rows;
    for (uint64_t i = 0; i < count; ++i)
        rows.push_back(static_cast<int32_t>(static_cast<double>(table) * uniform(i) * uniform(i)));
    return rows;
}

// Numbers in those rows, zeros elsewhere; sums of them depend on their order.
at::Tensor gradient(const Rows& rows, int64_t table, int64_t cols, at::ScalarType dtype, int64_t seed) {
    const at::Tensor grad = at::zeros({table, cols}, dtype);
    for (const int32_t row : rows)
        grad[row] = (at::sin(at::arange(cols, at::kFloat) * (1.0 + seed) + row) * (1 << row % 11)).to(dtype);
    return grad;
}

// What reduce_scatter leaves of the whole table.
at::Tensor dense_sum(const at::Tensor& grad, const std::vector<int64_t>& owned, Communicator& ranks) {
    const at::Tensor all = grad.clone();
    std::vector<int64_t> counts = owned;
    for (int64_t& count : counts) count *= grad.size(1);
    ranks.reduce_scatter(all.view(-1), counts, "dense")->wait();
    return own_part(all, owned, ranks.rank());
}

int64_t rows_for_others(const Rows& rows, const std::vector<int64_t>& owned, int64_t rank) {
    const int64_t first = std::reduce(owned.begin(), owned.begin() + rank),
                  end = first + owned[static_cast<size_t>(rank)];
    return std::ranges::count_if(std::set(rows.begin(), rows.end()),
                                 [&](int32_t row) { return row < first || row >= end; });
}

// Two sums one after the other: of gradients that add up over two steps, and of one after that; the ranks'
// shares are uneven, and one owns nothing.
TEST(RowExchange, GivesTheBitsOfReduceScatterAndSendsTheRowsAlone) {
    constexpr int64_t table = 21, cols = 5;
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
        for (const int ranks : {2, 3, 4, 8})
            run_ranks(ranks, [&](Communicator& comm) {
                const int64_t rank = comm.rank();
                const std::vector<int64_t> owned = owners(table, ranks);
                const at::Tensor grad = at::zeros({table, cols}, dtype);
                RowExchange exchange(grad, owned, comm, "table");
                for (int64_t round = 0; round < 2; ++round) {
                    Rows looked_up;
                    for (const int64_t step : {2 * round, 2 * round + 1}) {
                        if (round == 1 && step == 3) break;
                        const Rows rows = some_rows(rank, table, 9, step);
                        exchange.mark(rows);
                        looked_up.insert(looked_up.end(), rows.begin(), rows.end());
                        grad.add_(gradient(rows, table, cols, dtype, rank + step));
                    }
                    const at::Tensor dense = dense_sum(grad, owned, comm);
                    const int64_t before = comm.stats().bytes_sent;
                    if (round == 0) exchange.begin();
                    exchange.start();
                    exchange.finish();
                    const at::Tensor own = own_part(grad, owned, rank);
                    EXPECT_TRUE(own.equal(dense)) << at::toString(dtype) << " on " << ranks << "\n"
                                                  << own << dense;
                    EXPECT_EQ(comm.stats().bytes_sent - before,
                              8 * (ranks - 1) + rows_for_others(looked_up, owned, rank) *
                                                    (cols * static_cast<int64_t>(grad.element_size()) + 4));
                    grad.zero_();
                }
            });
}

// A message of more than a piece, and ranks that look nothing up in another's rows.
TEST(RowExchange, SendsLargeTables) {
    run_ranks(2, [](Communicator& comm) {
        constexpr int64_t table = 3000, cols = 512;
        const std::vector<int64_t> owned = owners(table, 2);
        Rows rows(comm.rank() == 0 ? 3000 : 700);
        std::iota(rows.begin(), rows.end(), comm.rank() == 0 ? 0 : 2000);
        const at::Tensor grad = gradient(rows, table, cols, at::kFloat, comm.rank());
        RowExchange exchange(grad, owned, comm, "table");
        exchange.mark(rows);
        const at::Tensor dense = dense_sum(grad, owned, comm);
        exchange.start();
        exchange.finish();
        EXPECT_TRUE(own_part(grad, owned, comm.rank()).equal(dense));
    });
}

TEST(RowExchange, FindsRowsOfGradientsThatWereLoaded) {
    run_ranks(3, [](Communicator& comm) {
        constexpr int64_t table = 30, cols = 4;
        const std::vector<int64_t> owned = owners(table, 3);
        // as after a resume on other ranks: one has all of them
        const at::Tensor grad = comm.rank() == 0
                                    ? gradient(some_rows(0, table, 12, 0), table, cols, at::kBFloat16, 1)
                                    : at::zeros({table, cols}, at::kBFloat16);
        RowExchange exchange(grad, owned, comm, "table");
        exchange.mark_what_is_there();
        const at::Tensor dense = dense_sum(grad, owned, comm);
        exchange.begin();
        exchange.start();
        exchange.finish();
        EXPECT_TRUE(own_part(grad, owned, comm.rank()).equal(dense));
    });
}

TEST(RowExchange, WantsToKnowTheRowsOfEverySum) {
    run_ranks(2, [](Communicator& comm) {
        RowExchange exchange(at::zeros({4, 2}), {2, 2}, comm, "table");
        EXPECT_ANY_THROW(exchange.start());
        exchange.mark(Rows{1});
        exchange.begin();
        exchange.clear();  // a step that is skipped
        EXPECT_ANY_THROW(exchange.begin());
        exchange.mark(Rows{1, 3});
        const int64_t before = comm.stats().bytes_sent;
        exchange.start();
        exchange.finish();
        EXPECT_EQ(comm.stats().bytes_sent - before, 8 + 1 * (2 * 4 + 4));
        EXPECT_ANY_THROW(exchange.start());
    });
}

// Against the reference's exchange: rows, how many go where, and the mean over 8 ranks, which it forms in
// bf16, so that it is max_abs_from_exact off; this one rounds once, by 2^-9 at most.
TEST(RowExchange, IsTheReferencesInNumbers) {
    const Json golden = Json::parse(std::ifstream(SPEEDRUN_SOURCE_DIR "/tests/golden/sparse_rows.json"));
    constexpr int64_t ranks = 8, table = 128, cols = 4;
    run_ranks(ranks, [&](Communicator& comm) {
        const std::string rank = std::to_string(comm.rank());
        const golden::Uniform place("sparse.rows." + rank), noise("sparse.grad." + rank);
        std::set<int32_t> touched;
        for (uint64_t i = 0; i < 24; ++i)
            touched.insert(static_cast<int32_t>(std::floor(table * place(i) * place(i))));
        const auto& expected = golden["touched"][static_cast<size_t>(comm.rank())];
        EXPECT_EQ(touched, expected.get<std::set<int32_t>>());
        const at::Tensor grad = at::zeros({table, cols}, at::kBFloat16);
        for (const int32_t row : touched)
            for (int64_t col = 0; col < cols; ++col)
                grad[row][col] = std::sqrt(12.0) * (noise(static_cast<uint64_t>(row * cols + col)) - 0.5);
        const std::vector<int64_t> owned = owners(table, ranks);
        RowExchange exchange(grad, owned, comm, "table");
        exchange.mark(Rows(touched.begin(), touched.end()));
        exchange.start();
        exchange.finish();
        const auto counts = golden["counts"][static_cast<size_t>(comm.rank())].get<std::vector<int64_t>>();
        EXPECT_EQ(comm.stats().bytes_sent,
                  7 * 8 + std::reduce(counts.begin(), counts.end()) * (cols * 2 + 4));
        const at::Tensor mean = own_part(grad, owned, comm.rank()).to(at::kDouble) / 8;
        const auto merged = golden["merged"][static_cast<size_t>(comm.rank())].get<std::vector<double>>();
        const at::Tensor reference = at::tensor(merged, at::kDouble).view({16, cols});
        const at::Tensor most = golden["max_abs_from_exact"].get<double>() + mean.abs() * 0x1p-8;
        EXPECT_TRUE((mean - reference).abs().le(most).all().item<bool>()) << mean << reference;
        EXPECT_TRUE(mean.eq(0).equal(reference.eq(0)));
    });
}

}  // namespace
}  // namespace speedrun

// Grids of attempts: their cells, and what the table says of them.
#include "record/grid/grid.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "util/error.h"

namespace speedrun {
namespace {

TEST(GridAxis, IsAKeyAndItsValues) {
    const GridAxis axis = parse_grid_axis("optimizer.matrix.lr=0.02,0.03");
    EXPECT_EQ(axis.key, "optimizer.matrix.lr");
    EXPECT_EQ(axis.values, (std::vector<std::string>{"0.02", "0.03"}));
}

TEST(GridAxis, RefusesWhatIsNone) {
    for (const char* text : {"lr", "=1", "lr=", "lr=1,,2", "lr=1,1"}) {
        SCOPED_TRACE(text);
        EXPECT_THROW(parse_grid_axis(text), UserError);
    }
}

TEST(GridCells, AreTheConfigAsItIsAndEveryCombination) {
    const std::vector<GridAxis> axes{{"a.lr", {"1", "2"}}, {"b", {"x/y"}}};
    const std::vector<GridCell> cells = grid_cells(axes);
    ASSERT_EQ(cells.size(), 3U);
    EXPECT_EQ(cells[0].name, "base");
    EXPECT_TRUE(cells[0].overrides.empty());
    EXPECT_EQ(cells[2].name, "lr=2_b=x_y");
    EXPECT_EQ(cells[2].overrides, (std::vector<std::string>{"a.lr=2", "b=x/y"}));
}

TEST(GridCells, HaveNamesOfTheirOwn) {
    const std::vector<GridAxis> axes{{"a", {"x/y", "x:y"}}};
    const std::vector<GridCell> cells = grid_cells(axes);
    EXPECT_NE(cells[1].name, cells[2].name);
}

TEST(GridCells, RefuseAKeyTwiceAndTooMany) {
    const std::vector<GridAxis> twice{{"a", {"1"}}, {"a", {"2"}}};
    EXPECT_THROW(grid_cells(twice), UserError);
    GridAxis many{"a", {}};
    for (int i = 0; i < 100; ++i) many.values.push_back(std::to_string(i));
    EXPECT_THROW(grid_cells(std::vector{many}), UserError);
}

// By scipy: differences of the second cell are 0.01, 0.03, 0.02 (ttest_1samp: t 3.4641, p 0.0742; mean's
// interval by t of 2 degrees: 0.02 +- 4.302653 * 0.01 / sqrt(3)), those of the third -0.1, -0.1, -0.13 (t
// -11, p 0.0081634).
TEST(GridRows, CompareSeedBySeedWithTheFirstCell) {
    const std::vector<GridLosses> cells{
        {"base", {3.0, 3.1, 3.2}}, {"lr=1", {3.01, 3.13, 3.22}}, {"lr=2", {2.9, 3.0, 3.07}}};
    const std::vector<GridRow> rows = grid_rows(cells);
    EXPECT_TRUE(std::isnan(rows[0].difference.value) && std::isnan(rows[0].p));
    EXPECT_NEAR(rows[1].difference.value, 0.02, 1e-12);
    EXPECT_NEAR(rows[1].difference.high - 0.02, 4.302652729911275 * 0.01 / std::sqrt(3.0), 1e-9);
    EXPECT_NEAR(rows[1].p, 0.07417990022744853, 1e-9);
    EXPECT_NEAR(rows[2].p, 0.008163401865824538, 1e-9);
    // The smaller of two counts twice.
    EXPECT_DOUBLE_EQ(rows[2].adjusted, 2 * rows[2].p);
    EXPECT_DOUBLE_EQ(rows[1].adjusted, rows[1].p);
}

TEST(GridRows, LeaveOutAndCountRunsThatDiverged) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const std::vector<GridLosses> cells{{"base", {3.0, 3.1, nan}}, {"lr=1", {nan, 3.2, 3.3}}};
    const std::vector<GridRow> rows = grid_rows(cells);
    EXPECT_EQ(rows[0].diverged, 1);
    EXPECT_EQ(rows[1].diverged, 1);
    EXPECT_NEAR(rows[1].difference.value, 0.1, 1e-12);  // of the one seed that both have
    EXPECT_TRUE(std::isnan(rows[1].p));
    EXPECT_EQ(grid_table(rows).size(), 3U);
    EXPECT_TRUE(grid_json(rows)[1]["p"].is_null());
}

}  // namespace
}  // namespace speedrun

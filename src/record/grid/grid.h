#pragma once
// A grid: attempts that differ from one config in the values of some keys, all with the same seeds, and what
// each of them changed.
#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "record/judge/statistics.h"
#include "util/text_table.h"

namespace speedrun {

// One key and the values that it takes in turn.
struct GridAxis {
    std::string key;
    std::vector<std::string> values;  // at least one; the config's own value is a cell anyway
};

// "optimizer.matrix.lr=0.02,0.03"; UserError where there is no key, no value, or a value twice.
GridAxis parse_grid_axis(const std::string& text);

// One attempt of a grid.
struct GridCell {
    std::string name;                    // of its folder: "base", "lr=0.02_cooldown_frac=0.5"
    std::vector<std::string> overrides;  // "optimizer.matrix.lr=0.02"
};

// The config as it is, and then every combination of the axes' values, the last axis varying fastest.
// UserError for more than 100 cells.
std::vector<GridCell> grid_cells(std::span<const GridAxis> axes);

// Final losses of a cell, by seed in the same order in every cell; NaN for a run that diverged.
struct GridLosses {
    std::string name;
    std::vector<double> losses;
};

// What a cell is against the first one.
struct GridRow {
    std::string name;
    Interval mean;        // of its losses
    Interval difference;  // mean of the differences seed by seed, by Student's t; NaN for the first
    double p = 0;         // two-sided, of no difference
    double adjusted = 0;  // the same by Holm for as many cells as are compared (NaN ones left out)
    int64_t diverged = 0;
};

// One row a cell. Statistics of a cell are over the seeds that converged in it and in the first cell.
std::vector<GridRow> grid_rows(std::span<const GridLosses> cells);

TextTable grid_table(std::span<const GridRow> rows);
nlohmann::ordered_json grid_json(std::span<const GridRow> rows);

}  // namespace speedrun

#include "record/grid/grid.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "util/error.h"

namespace speedrun {
namespace {

constexpr size_t kMostCells = 100;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// "optimizer.matrix.lr=0.02" as a part of a folder's name: "lr=0.02".
std::string short_name(const std::string& key, const std::string& value) {
    std::string name = key.substr(key.rfind('.') + 1) + "=" + value;
    for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c)) &&
            std::string_view("=.-+_").find(c) == std::string_view::npos)
            c = '_';
    return name;
}

// Every cell with one more override.
std::vector<GridCell> times(const std::vector<GridCell>& cells, const GridAxis& axis) {
    std::vector<GridCell> product;
    for (const GridCell& cell : cells)
        for (const std::string& value : axis.values) {
            GridCell next = cell;
            next.name += (next.name.empty() ? "" : "_") + short_name(axis.key, value);
            next.overrides.push_back(axis.key + "=" + value);
            product.push_back(std::move(next));
        }
    return product;
}

// Of the seeds that converged on both sides.
std::vector<double> differences(const std::vector<double>& from, const std::vector<double>& to) {
    check(from.size() == to.size(), "cells of a grid have the same seeds");
    std::vector<double> found;
    for (size_t i = 0; i < from.size(); ++i)
        if (std::isfinite(from[i]) && std::isfinite(to[i])) found.push_back(to[i] - from[i]);
    return found;
}

double two_sided(std::span<const double> differences) {
    const double below = t_test_less(differences, 0).p;
    return std::isfinite(below) ? 2 * std::min(below, 1 - below) : kNone;  // NaN: too few to say
}

// Holm's step-down: the k-th smallest of m counts m - k + 1 times, and at least as much as those before it.
void adjust(std::vector<GridRow>& rows) {
    std::vector<GridRow*> order;
    for (GridRow& row : rows) {
        row.adjusted = kNone;
        if (std::isfinite(row.p)) order.push_back(&row);
    }
    std::ranges::sort(order, {}, &GridRow::p);
    double before = 0;
    for (size_t k = 0; k < order.size(); ++k) {
        before = std::max(before, std::min(1.0, static_cast<double>(order.size() - k) * order[k]->p));
        order[k]->adjusted = before;
    }
}

std::string number(double value, const char* format) {
    return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : "-";
}

std::string interval(const Interval& found, const char* format) {
    if (!std::isfinite(found.value)) return "-";
    if (!std::isfinite(found.low)) return number(found.value, format);
    return number(found.value, format) + " [" + number(found.low, format) + ", " +
           number(found.high, format) + "]";
}

}  // namespace

GridAxis parse_grid_axis(const std::string& text) {
    const size_t equals = text.find('=');
    const auto fail = [&](const std::string& what) {
        throw UserError("--grid " + text + ": " + what + "; allowed: KEY=VALUE,VALUE,... such as " +
                        "optimizer.matrix.lr=0.02,0.03");
    };
    if (equals == 0 || equals == std::string::npos) fail("names no key");
    GridAxis axis{text.substr(0, equals), {}};
    for (size_t begin = equals + 1; begin <= text.size();) {
        const size_t end = std::min(text.find(',', begin), text.size());
        const std::string value = text.substr(begin, end - begin);
        if (value.empty()) fail("has an empty value");
        if (std::ranges::find(axis.values, value) != axis.values.end()) fail("has " + value + " twice");
        axis.values.push_back(value);
        begin = end + 1;
    }
    return axis;
}

std::vector<GridCell> grid_cells(std::span<const GridAxis> axes) {
    std::vector<GridCell> cells(1);
    for (size_t i = 0; i < axes.size(); ++i) {
        if (std::ranges::find(axes.first(i), axes[i].key, &GridAxis::key) != axes.first(i).end())
            throw UserError("--grid: " + axes[i].key + " is named twice; allowed: each key once");
        cells = times(cells, axes[i]);
        if (cells.size() >= kMostCells)
            throw UserError("--grid: " + std::to_string(cells.size()) +
                            " combinations or more; allowed: " + std::to_string(kMostCells - 1));
    }
    cells.insert(cells.begin(), GridCell{"base", {}});
    for (size_t i = 0; i < cells.size(); ++i)
        if (std::ranges::count(cells, cells[i].name, &GridCell::name) > 1)
            cells[i].name += "_" + std::to_string(i);
    return cells;
}

std::vector<GridRow> grid_rows(std::span<const GridLosses> cells) {
    std::vector<GridRow> rows;
    for (const GridLosses& cell : cells) {
        std::vector<double> converged;
        std::ranges::copy_if(cell.losses, std::back_inserter(converged),
                             [](double x) { return std::isfinite(x); });
        GridRow row{.name = cell.name,
                    .mean = mean_interval(converged),
                    .difference = {kNone, kNone, kNone},
                    .p = kNone,
                    .adjusted = kNone,
                    .diverged = std::ssize(cell.losses) - std::ssize(converged)};
        if (!rows.empty()) {
            const std::vector<double> changes = differences(cells.front().losses, cell.losses);
            row.difference = mean_interval(changes);
            row.p = two_sided(changes);
        }
        rows.push_back(row);
    }
    adjust(rows);
    return rows;
}

TextTable grid_table(std::span<const GridRow> rows) {
    TextTable table{
        {"cell", "mean loss [95 %]", "difference, seed by seed [95 %]", "p", "p by Holm", "diverged"}};
    for (const GridRow& row : rows)
        table.push_back({row.name, interval(row.mean, "{:.4f}"), interval(row.difference, "{:+.4f}"),
                         number(row.p, "{:.4f}"), number(row.adjusted, "{:.4f}"),
                         std::to_string(row.diverged)});
    return table;
}

nlohmann::ordered_json grid_json(std::span<const GridRow> rows) {
    const auto finite = [](double x) {
        return std::isfinite(x) ? nlohmann::ordered_json(x) : nlohmann::ordered_json(nullptr);
    };
    const auto of = [&](const Interval& x) {
        return nlohmann::ordered_json{
            {"value", finite(x.value)}, {"low", finite(x.low)}, {"high", finite(x.high)}};
    };
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const GridRow& row : rows)
        list.push_back({{"cell", row.name},
                        {"mean_loss", of(row.mean)},
                        {"difference", of(row.difference)},
                        {"p", finite(row.p)},
                        {"p_holm", finite(row.adjusted)},
                        {"diverged", row.diverged}});
    return list;
}

}  // namespace speedrun

#pragma once
// Every part that a pipeline may have, in the order in which they run: its name, where it comes from, and
// the configs that have it. A new part is a row here and a file beside this one.
#include <array>
#include <string_view>

#include "config/config.h"

namespace speedrun {

struct PipelinePartRow {
    const char* name;
    const char* source;
    bool (*there)(const MatrixConfig& config);
};

namespace pipeline_part {
using Direction = MatrixConfig::Direction::Kind;
using Method = MatrixConfig::Orthogonalize::Method;
using SecondMoment = MatrixConfig::SecondMoment;

constexpr bool has_line_moments(const MatrixConfig& c) {
    return c.second_moment != SecondMoment::none && c.second_moment != SecondMoment::matrix;
}

template <Direction kind>
constexpr bool along(const MatrixConfig& c) {
    return c.direction.kind == kind;
}
}  // namespace pipeline_part

inline constexpr auto pipeline_parts = std::to_array<PipelinePartRow>({
    // directions, in the momentum's place
    {"adam", "arXiv 1412.6980", pipeline_part::along<pipeline_part::Direction::adam>},
    {"entries", "track 3, result 7", pipeline_part::along<pipeline_part::Direction::entries>},
    {"soap_direction", "arXiv 2409.11321; track 3, results 14, 16, 27, 44 to 46",
     pipeline_part::along<pipeline_part::Direction::soap>},
    {"kl_soap", "arXiv 2509.03378; track 3, result 19",
     pipeline_part::along<pipeline_part::Direction::kl_soap>},
    {"powers", "track 3, result 18", pipeline_part::along<pipeline_part::Direction::powers>},
    {"grafted_shampoo", "arXiv 2309.06497; track 3, result 21",
     pipeline_part::along<pipeline_part::Direction::shampoo>},
    // towards the polar factor
    {"polynomial", "https://kellerjordan.github.io/posts/muon, arXiv 2505.16932; track 3, result 28",
     [](const MatrixConfig& c) {
         return c.orthogonalize.method == pipeline_part::Method::polar_express ||
                c.orthogonalize.method == pipeline_part::Method::newton_schulz;
     }},
    {"running_root", "MuonVariants, arXiv 2412.13148",
     [](const MatrixConfig& c) { return c.orthogonalize.method == pipeline_part::Method::preconditioner; }},
    {"signs", "MuonVariants", [](const MatrixConfig& c) { return c.signs != MatrixConfig::Signs::keep; }},
    {"contra", "https://github.com/nilin/contra-muon; track 3, result 11",
     [](const MatrixConfig& c) { return c.contra != 0; }},
    // numbers of lines and whole matrices
    {"line_moments", "arXiv 2510.05491", pipeline_part::has_line_moments},
    {"matrix_norms", "MuonVariants; arXiv 2510.05491",
     [](const MatrixConfig& c) {
         return c.second_moment == pipeline_part::SecondMoment::matrix ||
                (c.second_moment == pipeline_part::SecondMoment::none &&
                 c.scale == MatrixConfig::Scale::paper);
     }},
    // the weights' own length
    {"radial_brake", "track 3, results 44 to 46",
     [](const MatrixConfig& c) { return c.length.outward != 1 || c.length.inward != 1; }},
    {"update_floor", "track 3, results 9 and 46", [](const MatrixConfig& c) { return c.length.floor != 0; }},
    {"radius", "track 3, results 4 and 44",
     [](const MatrixConfig& c) { return c.length.kind != MatrixConfig::Length::Kind::free; }},
    {"row_norms", "track 3, result 23", [](const MatrixConfig& c) { return c.row_norms.has_value(); }},
    {"decay_last", "arXiv 2510.12402; track 3, result 46",
     [](const MatrixConfig& c) { return c.decay == MatrixConfig::Decay::cautious_last; }},
});

// Its place in the table; its size where there is no such part.
constexpr size_t pipeline_part_index(std::string_view name) {
    size_t index = 0;
    while (index < pipeline_parts.size() && pipeline_parts[index].name != name) ++index;
    return index;
}

}  // namespace speedrun

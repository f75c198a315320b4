#include "model/initialize.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <cmath>

#include "util/error.h"

namespace speedrun {
namespace {

bool draws(const Init& init) {
    return init.kind != Init::Kind::zeros && init.kind != Init::Kind::constant;
}

void fill(const at::Tensor& target, const Init& init, at::Generator& generator) {
    if (!draws(init)) {
        target.fill_(init.kind == Init::Kind::zeros ? 0.0 : init.value);
        return;
    }
    // Drawn whole and contiguous: torch fills 16 or more contiguous normals by another algorithm than fewer
    // or strided.
    const at::Tensor drawn = at::empty(target.sizes(), at::kFloat);
    const double bound = std::sqrt(3.0) * init.value;
    if (init.kind == Init::Kind::normal)
        drawn.normal_(0, init.value, generator);
    else if (init.kind == Init::Kind::uniform)
        drawn.uniform_(-bound, bound, generator);
    else
        drawn.random_(0, 2, generator).mul_(2).sub_(1);
    target.copy_(drawn);
}

// `inits` has one element for the whole of `entry`, or one for each index of its dimension 0; neighbours that
// are equal are drawn in one call.
void fill_parts(const at::Tensor& entry, const std::vector<Init>& inits, at::Generator& generator) {
    if (inits.size() == 1) return fill(entry, inits[0], generator);
    const auto parts = static_cast<int64_t>(inits.size());
    check(entry.dim() > 0 && entry.size(0) == parts, "initialiser list and shape differ");
    for (int64_t begin = 0, end = 0; begin < parts; begin = end) {
        while (end < parts && inits[end] == inits[begin]) ++end;
        fill(entry.narrow(0, begin, end - begin), inits[begin], generator);
    }
}

// The initialisers of a per-layer parameter are those of each of its entries, whatever its names in files.
void fill_entry(const StateDictEntry& entry, const Parameter& parameter, at::Generator& generator) {
    const at::Tensor part = entry.of(parameter.value);
    if (entry.index >= 0 || parameter.config.layers.empty())
        return fill_parts(part, parameter.config.init, generator);
    for (int64_t i = 0; i < part.size(0); ++i)
        fill_parts(part.select(0, i), parameter.config.init, generator);
}

void fill_slices(const at::Tensor& value, const std::vector<Slice>& slices) {
    const at::Tensor filled = at::zeros({value.numel()}, at::kFloat);
    for (const Slice& slice : slices) {
        int64_t count = 1;
        for (const int64_t size : slice.shape) count *= size;
        check(slice.at >= 0 && slice.at + count <= filled.numel() && !slice.init.empty(),
              "slice " + slice.name + " is outside of its parameter");
        for (int64_t i = 0; i < count; ++i) filled[slice.at + i] = slice.init[i % slice.init.size()];
    }
    value.copy_(filled.view(value.sizes()));
}

}  // namespace

void initialize(ParameterTable& table, const ModelConfig& model, uint64_t seed) {
    at::Generator generator = at::detail::createCPUGenerator(seed);
    int64_t layers = model.n_layer;
    for (const Parameter& parameter : table.all()) {
        for (const int64_t layer : parameter.config.layers) layers = std::max(layers, layer + 1);
        if (!parameter.config.slices.empty()) fill_slices(parameter.value, parameter.config.slices);
    }
    for (int64_t layer = -1; layer < layers; ++layer) {
        for (const Parameter& parameter : table.all()) {
            if (!parameter.config.slices.empty()) continue;
            for (const StateDictEntry& entry : state_dict_entries(parameter.config)) {
                if (entry.layer != layer) continue;
                fill_entry(entry, parameter, generator);
            }
        }
    }
    table.refresh();
}

}  // namespace speedrun

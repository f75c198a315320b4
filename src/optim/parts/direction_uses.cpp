#include "optim/parts/direction_uses.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

namespace speedrun {

DirectionUses::DirectionUses(const OptimParamConfig& row) : before_{0} {
    const auto& turn = row.per_matrix_direction;
    for (int64_t i = 0; i < row.matrix_view[0]; ++i) {
        const std::string use = turn.empty() ? "on" : turn[static_cast<size_t>(i) % turn.size()];
        const bool has = use != "off";
        before_.push_back(count() + (has ? 1 : 0));
        if (!has) continue;
        chosen_.push_back(i);
        gated_.push_back(use == "gated" ? 1 : 0);
    }
}

DirectionUses::Group DirectionUses::group(int64_t begin, int64_t size, at::Device device) const {
    const int64_t first = before_[static_cast<size_t>(begin)],
                  end = before_[static_cast<size_t>(begin + size)];
    const auto part = [&](const std::vector<int64_t>& all) {
        return at::tensor(std::vector<int64_t>(all.begin() + first, all.begin() + end), at::kLong).to(device);
    };
    Group found{.begin = first, .count = end - first, .index = {}, .gated = {}};
    if (found.count < size) found.index = part(chosen_) - begin;
    if (std::count(gated_.begin() + first, gated_.begin() + end, 1) > 0)
        found.gated = part(gated_).ne(0).view({-1, 1, 1});
    return found;
}

at::Tensor DirectionUses::Group::take(const at::Tensor& x) const {
    return index.defined() ? x.index_select(0, index) : x;
}

at::Tensor DirectionUses::Group::of(const at::Tensor& state) const {
    return state.narrow(0, begin, count);
}

}  // namespace speedrun

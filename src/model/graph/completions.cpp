#include "model/graph/completions.h"

#include <algorithm>
#include <map>

#include "config/notation.h"

namespace speedrun {
namespace {

// The elements of a parameter that somebody has claimed, as ranges that do not touch one another.
class Claims {
  public:
    // Claims [begin, end); what of it nobody had.
    std::vector<std::pair<int64_t, int64_t>> claim(int64_t begin, int64_t end) {
        std::vector<std::pair<int64_t, int64_t>> fresh;
        int64_t next = begin;
        for (const auto& [first, last] : claimed_) {
            if (last <= next) continue;
            if (first >= end) break;
            if (next < first) fresh.emplace_back(next, first);
            next = last;
        }
        if (next < end) fresh.emplace_back(next, end);
        for (const auto& [first, last] : fresh) claimed_[first] = last;
        return fresh;
    }

  private:
    std::map<int64_t, int64_t> claimed_;
};

}  // namespace

std::vector<std::vector<ElementRange>> gradient_completions(const Graph& graph, const ModelConfig& model) {
    std::map<std::string, Claims> claims;
    std::vector<std::vector<ElementRange>> completed(graph.nodes().size() + 1);
    const auto claim = [&](const std::string& param, int64_t begin, int64_t end, auto& to) {
        for (const auto& [first, last] : claims[param].claim(begin, end)) to.push_back({param, first, last});
    };
    for (size_t i = 0; i < graph.nodes().size(); ++i)
        for (const WeightUse& use : graph.nodes()[i]->weights())
            if (use.kind != WeightUse::Kind::element)
                claim(use.weight.param, use.weight.begin,
                      use.weight.begin + product(use.weight.shape).value_or(0), completed[i]);
    for (const ParamConfig& param : model.params)
        claim(param.name, 0, product(param.shape).value_or(0), completed.back());
    return completed;
}

}  // namespace speedrun

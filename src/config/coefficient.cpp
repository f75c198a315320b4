#include "config/coefficient.h"

#include <utility>

namespace speedrun {

const std::string coefficient_allowed =
    "a number, or an expression of +, -, *, sigmoid(), tanh() with elements (\"scalars.skip[0]\", "
    "\"x0_lambdas[2i+1]\"), gates (\"attn_gate@a[:12]\") and outputs of nets (\"m0[3]\")";

Coefficient product_of(std::vector<Coefficient> factors) {
    using Kind = Coefficient::Kind;
    double number = 1;
    std::vector<Coefficient> rest;
    for (Coefficient& factor : factors) {
        if (factor.kind == Kind::number) {
            number *= factor.number;
        } else if (factor.kind == Kind::product) {
            for (Coefficient& inner : factor.arguments) {
                if (inner.kind == Kind::number)
                    number *= inner.number;
                else
                    rest.push_back(std::move(inner));
            }
        } else {
            rest.push_back(std::move(factor));
        }
    }
    if (rest.empty()) return {.number = number};
    if (rest.size() == 1 && number == 1) return std::move(rest.front());
    if (number != 1) rest.insert(rest.begin(), Coefficient{.number = number});
    return {.kind = Kind::product, .arguments = std::move(rest)};
}

}  // namespace speedrun

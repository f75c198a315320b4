#include "config/matrix_rules.h"

#include "util/error.h"

namespace speedrun {

const MatrixRule& matrix_rule(const std::string& name) {
    const size_t index = matrix_rule_index(name);
    check(index < matrix_rules.size(), "no matrix rule \"" + name + "\" in a validated config");
    return matrix_rules[index];
}

MatrixConfig matrix_defaults(const std::string& name) {
    MatrixConfig config;
    matrix_rule(name).defaults(config);
    config.rule = name;
    return config;
}

}  // namespace speedrun

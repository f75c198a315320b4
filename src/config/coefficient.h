#pragma once
// The multipliers of a model, and the parts of parameters that it reads.
#include <cstdint>
#include <string>
#include <vector>

namespace speedrun {

// A part of a parameter that is used as one tensor: `shape` elements from the flat parameter's element
// `begin` on. JSON: "mlp_bank[3,1]", "qk_bank[6:12]", or the parameter's name alone, which means its entries
// of the layer where the parameter has `layers`, else all of it.
struct WeightRef {
    std::string param;
    int64_t begin = 0;
    std::vector<int64_t> shape;

    bool operator==(const WeightRef&) const = default;
};

// Channels [begin, begin + count) of a value of the model.
struct ChannelRange {
    std::string source;
    int64_t begin = 0, count = 0;

    bool operator==(const ChannelRange&) const = default;
};

// An expression. Its numbers are one for the model, one a token, or one a token and head, as its deepest
// parts are. Grammar of its text, the loosest binding first:
// clang-format off
//   sum      = [-] product { (+ | -) product }
//   product  = factor { * factor }
//   factor   = number | sigmoid(sum) | tanh(sum) | (sum) | element | gate | output
//   element  = param[index, ...] or param.slice[index, ...]: an element of a parameter, or its last dimensions
//   gate     = param @ source[:n] | source[:n] ...: the linear form of the parameter's rows [outputs, channels]
//              in the first channels of sources, one after the other
//   output   = net[begin:end] or net[index]: outputs of a net (model.coef_nets), each for as many channels
//   index    = integer, i, 2i, 2i+1 and so on: i is the index of the layer
// clang-format on
struct Coefficient {
    enum class Kind : uint8_t { number, element, gate, output, sum, product, sigmoid, tanh };

    Kind kind = Kind::number;
    double number = 1;                        // number
    WeightRef weight = {};                    // element, gate
    std::vector<ChannelRange> channels = {};  // gate: what it reads
    std::string net = {};                     // output
    int64_t begin = 0, count = 1;             // output: which of the net's
    std::vector<Coefficient> arguments = {};  // sum, product: two or more; sigmoid, tanh: one

    bool operator==(const Coefficient&) const = default;
};

// The product in its shortest form: numbers multiplied, products inside it dissolved, factors 1 left out.
Coefficient product_of(std::vector<Coefficient> factors);

// What an error says is allowed where a coefficient is expected.
extern const std::string coefficient_allowed;

}  // namespace speedrun

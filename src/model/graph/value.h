#pragma once
#include <cstdint>
#include <string>

namespace speedrun {

// Of the list of a graph's values.
using ValueId = int;

// A tensor [T, channels] that one node writes in forward, and others read there and in their backward.
struct Value {
    std::string name;  // "model.layers[3].attn.q"
    int64_t channels = 0;
    enum class Element : uint8_t { activation, fp32 } element = Element::activation;
    // A part lies in the channels [first, first + channels) of another value, which begins and ends with it;
    // -1: the value has memory of its own.
    ValueId whole = -1;
    int64_t first = 0;
    // Its gradient begins as zeros: readers of some of its channels add to them.
    bool summed = false;

    int last_forward_reader = -1;    // index of the last node that reads it in forward
    bool kept_for_backward = false;  // false: may be released after its last reader in forward
};

}  // namespace speedrun

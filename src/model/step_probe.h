#pragma once
#include <cstdint>

namespace speedrun {

class Node;

// What a step's time goes to.
enum class StepPart : uint8_t {
    head,           // its products, soft cap and loss
    attention,      // and its projections
    mlp,            // its products and relu^2
    norms,          // embeddings, smear, mixes, norms, rotary, gates
    optimizer,      // updates
    communication,  // starting collectives and waiting for them
    rest
};
inline constexpr int step_parts = 7;

enum class Direction : uint8_t { forward, backward };

// Is told what a step is about to do.
class StepProbe {
  public:
    virtual ~StepProbe() = default;
    // Before the first op of a part.
    virtual void enter(StepPart part) = 0;
    // Before a node of the model; of those whose parts alone are wanted, nobody needs to know more.
    virtual void enter(const Node&, Direction) {}
};

// Nothing without a probe.
inline void enter(StepProbe* probe, StepPart part) {
    if (probe) probe->enter(part);
}

}  // namespace speedrun

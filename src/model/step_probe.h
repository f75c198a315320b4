#pragma once
#include <cstdint>

namespace speedrun {

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

// Is told whenever a step goes on to a part, before its first op.
class StepProbe {
  public:
    virtual ~StepProbe() = default;
    virtual void enter(StepPart part) = 0;
};

// Nothing without a probe.
inline void enter(StepProbe* probe, StepPart part) {
    if (probe) probe->enter(part);
}

}  // namespace speedrun

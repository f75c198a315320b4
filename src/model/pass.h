#pragma once
// What one forward (and backward) over a micro-batch works on.
#include <ATen/core/Tensor.h>

#include "model/parameters.h"
#include "model/rotary.h"
#include "model/scalar_table.h"
#include "model/step_probe.h"
#include "model/workspace.h"
#include "ops/attention/attention.h"
#include "ops/head_loss.h"

namespace speedrun {

struct Pass {
    Workspace& workspace;
    ParameterTable& parameters;
    ScalarTable& scalars;
    const Rotary& rotary;
    const ops::Attention& attention;
    at::Tensor inputs;  // int32 [T]
    // int32 [T], where the model looks them up
    at::Tensor bigram_rows = {}, sign_rows = {};
    ops::Targets targets;  // int64 [T], and in training the step's weights
    bool tied = false;     // StepSettings::tied
    struct Masks {
        ops::AttentionMask short_window, long_window;
    };
    Masks masks, paired_masks;   // of paired heads, where the model has any
    double grad_scale = 1;       // the gradient is grad_scale * d(sum of losses)
    at::Tensor loss_per_token;   // fp32 [T], written by the head
    int64_t wanted_logits = -1;  // of this token the head makes logits instead of losses
    at::Tensor logits;           // fp32 [vocab_size], soft-capped
    at::Tensor loss_sum;         // fp64, 0-dim, of a pass with backward
    StepProbe* probe = nullptr;
};

}  // namespace speedrun

#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"

namespace speedrun {

// Sums the gradient of a table over the ranks where only the rows that a rank has looked up have one (record
// 71): instead of the whole table, ranks send each other those rows. The host marks them; counts, indices and
// rows each go by an all_to_all, and an owner adds up what it gets in rank order, its own at its place: in
// fp32, rounded once. On CPUs that is what reduce_scatter gives, but that a sum of zeros is always +0; on
// GPUs it is the same arithmetic, which NCCL's is not.
class RowExchange {
  public:
    // `grad`: [rows, cols], fp32 or bf16, the whole table's on every rank; rank r owns the next
    // owned_rows[r] rows. The communicator must outlive it; `label` names its collectives.
    RowExchange(at::Tensor grad, std::vector<int64_t> owned_rows, Communicator& communicator,
                std::string label);

    // These rows have, or will have by start(), a gradient on this rank. Any order, repeats allowed.
    void mark(std::span<const int32_t> rows);
    // So do those that are not zero now: after gradients have been loaded. Waits for the device.
    void mark_what_is_there();
    // Nothing is marked, and a count under way is forgotten: after the gradient has become zero.
    void clear();

    // All ranks call the next three, in this order; begin() may be left out.
    // Every row of the coming sum has been marked: starts to tell the ranks how many they will get.
    // InternalError where nothing was marked since the last sum.
    void begin();
    // The gradient is there: sends the rows.
    void start();
    // Leaves this rank's own rows with the sum over the ranks, the others as they are, and nothing marked.
    void finish();

  private:
    std::vector<int64_t> received_counts();

    at::Tensor grad_;
    std::vector<int64_t> owned_rows_;
    Communicator& communicator_;
    std::string label_;
    std::vector<uint8_t> marks_;  // a byte a row
    bool marked_ = false;

    // Of the sum under way: what this rank sends, what it gets from each rank.
    std::vector<int32_t> rows_;
    std::vector<int64_t> send_counts_, receive_counts_;
    at::Tensor counts_;                 // int64 [ranks], on the host once copied_ has passed
    std::optional<c10::Event> copied_;  // of a GPU
    Handle counting_, sending_indices_, sending_rows_;
    at::Tensor indices_, values_;  // int32 [n], from the owner's first row on; [n, cols]
};

}  // namespace speedrun

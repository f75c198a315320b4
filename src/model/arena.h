#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <utility>
#include <vector>

namespace speedrun {

// Memory for the tensors of passes. Where it was reserved, they are cut from one piece, each from the first
// place that is free and large enough: passes of other lengths, shapes and dtypes take turns with the same
// bytes, and a pass that is repeated finds each tensor where it was. What does not fit into the piece (all of
// it, where none was reserved) is allocated, and kept for the next of the same shape and dtype.
class Arena {
  public:
    // On the meta device there is always room.
    explicit Arena(at::Device device);
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    void reserve(int64_t bytes);  // once, before anything is acquired
    at::Tensor acquire(const std::vector<int64_t>& shape, at::ScalarType dtype);  // contents undefined
    void release(at::Tensor tensor);  // the caller gives up its handle
    // Of the piece and of what did not fit; on the meta device, what would have had to be reserved.
    int64_t allocated_bytes() const;

  private:
    using Key = std::pair<std::vector<int64_t>, at::ScalarType>;
    at::Tensor cut(const std::vector<int64_t>& shape, at::ScalarType dtype, int64_t bytes);

    at::Device device_;
    at::Tensor piece_;
    std::map<int64_t, int64_t> gaps_;                // of the piece, free: where each begins, and its bytes
    int64_t highest_ = 0;                            // where the tensors of the piece have ended at the most
    std::map<Key, std::vector<at::Tensor>> others_;  // free, not of the piece
    int64_t others_bytes_ = 0;
};

}  // namespace speedrun

#include "optim/row_exchange.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "util/error.h"

namespace speedrun {
namespace {

// On a GPU by a copy that nobody waits for.
template <typename T>
at::Tensor on_device(const std::vector<T>& numbers, at::ScalarType dtype, at::Device device) {
    const at::Tensor host =
        at::empty({std::ssize(numbers)}, at::TensorOptions(dtype).pinned_memory(device.is_cuda()));
    std::ranges::copy(numbers, host.data_ptr<T>());
    return device.is_cpu() ? host : host.to(device, /*non_blocking=*/true);
}

std::vector<int64_t> times(std::vector<int64_t> counts, int64_t factor) {
    for (int64_t& count : counts) count *= factor;
    return counts;
}

}  // namespace

RowExchange::RowExchange(at::Tensor grad, std::vector<int64_t> owned_rows, Communicator& communicator,
                         std::string label)
    : grad_(std::move(grad)),
      owned_rows_(std::move(owned_rows)),
      communicator_(communicator),
      label_(std::move(label)),
      marks_(static_cast<size_t>(grad_.size(0)), 0) {
    check(std::ssize(owned_rows_) == communicator_.world_size() &&
              std::reduce(owned_rows_.begin(), owned_rows_.end()) == grad_.size(0),
          label_ + ": every row has one owner");
}

void RowExchange::mark(std::span<const int32_t> rows) {
    for (const int32_t row : rows) marks_[static_cast<size_t>(row)] = 1;
    marked_ = true;
}

void RowExchange::mark_what_is_there() {
    const at::Tensor rows = grad_.ne(0).any(1).nonzero().view(-1).to(at::kInt).cpu();
    mark({rows.const_data_ptr<int32_t>(), static_cast<size_t>(rows.numel())});
}

void RowExchange::clear() {
    if (counting_) counting_->wait();
    counting_.reset();
    std::ranges::fill(marks_, uint8_t{0});
    marked_ = false;
}

void RowExchange::begin() {
    check(marked_, label_ + ": nobody has said which rows have gradients");
    check(!counting_ && !sending_rows_, label_ + ": its sum has begun already");
    rows_.clear();
    send_counts_.clear();
    size_t row = 0;
    for (const int64_t owned : owned_rows_) {
        const size_t before = rows_.size(), end = row + static_cast<size_t>(owned);
        for (; row < end; ++row)
            if (marks_[row]) rows_.push_back(static_cast<int32_t>(row));
        send_counts_.push_back(static_cast<int64_t>(rows_.size() - before));
    }
    const at::Device device = grad_.device();
    const at::Tensor sent = on_device(send_counts_, at::kLong, device), received = at::empty_like(sent);
    const std::vector<int64_t> one(owned_rows_.size(), 1);
    counting_ = communicator_.all_to_all(sent, one, received, one, label_ + " counts");
    counts_ = received;
    if (!device.is_cuda()) return;
    counting_->wait();
    counts_ = at::empty({received.numel()}, at::TensorOptions(at::kLong).pinned_memory(true));
    counts_.copy_(received, /*non_blocking=*/true);
    if (!copied_) copied_.emplace(device.type());
    copied_->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

std::vector<int64_t> RowExchange::received_counts() {
    if (copied_)
        copied_->synchronize();
    else
        counting_->wait();
    counting_.reset();
    const int64_t* first = counts_.const_data_ptr<int64_t>();
    return {first, first + counts_.numel()};
}

void RowExchange::start() {
    if (!counting_) begin();
    receive_counts_ = received_counts();
    std::vector<int32_t> within = rows_;  // its owner's rows
    size_t at = 0;
    int32_t first = 0;
    for (size_t owner = 0; owner < owned_rows_.size(); ++owner) {
        for (const size_t end = at + static_cast<size_t>(send_counts_[owner]); at < end; ++at)
            within[at] -= first;
        first += static_cast<int32_t>(owned_rows_[owner]);
    }
    const int64_t arriving = std::reduce(receive_counts_.begin(), receive_counts_.end());
    const int64_t cols = grad_.size(1);
    const at::Device device = grad_.device();
    const at::Tensor sent = on_device(within, at::kInt, device);
    const at::Tensor values = grad_.index_select(0, on_device(rows_, at::kInt, device));
    indices_ = at::empty({arriving}, sent.options());
    values_ = at::empty({arriving, cols}, values.options());
    sending_indices_ =
        communicator_.all_to_all(sent, send_counts_, indices_, receive_counts_, label_ + " rows");
    sending_rows_ = communicator_.all_to_all(values.view(-1), times(send_counts_, cols), values_.view(-1),
                                             times(receive_counts_, cols), label_);
}

void RowExchange::finish() {
    for (Handle* const handle : {&sending_indices_, &sending_rows_}) {
        (*handle)->wait();
        handle->reset();
    }
    const auto rank = static_cast<size_t>(communicator_.rank());
    const int64_t first = std::reduce(owned_rows_.begin(), owned_rows_.begin() + communicator_.rank());
    const at::Tensor own = grad_.narrow(0, first, owned_rows_[rank]);
    const at::Tensor sum = at::zeros(own.sizes(), own.options().dtype(at::kFloat));
    int64_t from = 0;
    for (const int64_t count : receive_counts_) {  // a rank sends no row twice
        sum.index_add_(0, indices_.narrow(0, from, count), values_.narrow(0, from, count).to(at::kFloat));
        from += count;
    }
    own.copy_(sum);
    indices_.reset();
    values_.reset();
    clear();
}

}  // namespace speedrun

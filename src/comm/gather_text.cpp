#include "comm/gather_text.h"

#include <ATen/ATen.h>

#include <cstring>

namespace speedrun {

std::vector<std::string> gather_text(Communicator& communicator, const std::string& text,
                                     std::string_view label) {
    const int64_t rank = communicator.rank(), size = communicator.world_size();
    const at::Tensor lengths = at::zeros({size}, at::kLong);
    lengths[rank] = static_cast<int64_t>(text.size());
    communicator.all_gather(lengths, std::vector<int64_t>(static_cast<size_t>(size), 1), label)->wait();
    const std::vector<int64_t> counts(lengths.const_data_ptr<int64_t>(),
                                      lengths.const_data_ptr<int64_t>() + size);

    const at::Tensor bytes = at::zeros({lengths.sum().item<int64_t>()}, at::kByte);
    const int64_t from = lengths.narrow(0, 0, rank).sum().item<int64_t>();
    if (!text.empty()) std::memcpy(bytes.mutable_data_ptr<uint8_t>() + from, text.data(), text.size());
    if (bytes.numel() > 0) communicator.all_gather(bytes, counts, label)->wait();

    std::vector<std::string> texts;
    const char* at = static_cast<const char*>(bytes.const_data_ptr());
    for (const int64_t count : counts) {
        texts.emplace_back(at, at + count);
        at += count;
    }
    return texts;
}

}  // namespace speedrun

#pragma once
// A slow transcription of record 43's BOSFinder.next_batch and distributed_data_generator for eight ranks
// (any number of rows here), written from the Python and not from src/data.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "data/batch.h"

namespace speedrun {

class LoaderModel {
  public:
    LoaderModel(std::vector<std::vector<uint16_t>> shards, int64_t row_tokens, int64_t entries, uint16_t bos)
        : shards_(std::move(shards)), row_tokens_(row_tokens), entries_(entries), bos_(bos) {
        load(0);
    }

    // Nothing when the last shard is used up.
    std::optional<std::vector<Batch>> next(int64_t rows, int64_t max_seq_len) {
        while (true) {
            auto batches = next_of_shard(rows, max_seq_len);
            if (batches) return batches;
            if (shard_ + 1 == shards_.size()) return std::nullopt;
            load(shard_ + 1);
        }
    }

  private:
    void load(size_t shard) {
        shard_ = shard;
        i_ = 0;
        bos_idx_.clear();
        for (size_t t = 0; t < shards_[shard].size(); ++t) {
            if (shards_[shard][t] == bos_) bos_idx_.push_back(static_cast<int64_t>(t));
        }
    }

    std::optional<std::vector<Batch>> next_of_shard(int64_t rows, int64_t max_seq_len) {
        const std::vector<uint16_t>& tokens = shards_[shard_];
        size_t idx = i_;
        std::vector<Batch> batches;
        for (int64_t r = 0; r < rows; ++r) {
            std::vector<int64_t> buf, lengths;
            int64_t cur_len = 0;
            while (cur_len <= row_tokens_) {
                if (idx >= bos_idx_.size()) return std::nullopt;
                const int64_t cur = bos_idx_[idx];
                int64_t end =
                    idx + 1 < bos_idx_.size() ? bos_idx_[idx + 1] : static_cast<int64_t>(tokens.size());
                end = std::min(end, cur + max_seq_len);
                end = std::min(end, cur + row_tokens_ - cur_len + 1);
                for (int64_t t = cur; t < end; ++t) buf.push_back(tokens[static_cast<size_t>(t)]);
                lengths.push_back(end - cur);
                cur_len += end - cur;
                ++idx;
            }
            lengths.back() -= 1;
            Batch batch;
            for (int64_t t = 0; t < row_tokens_; ++t) {
                batch.inputs.push_back(static_cast<int32_t>(buf[static_cast<size_t>(t)]));
                batch.targets.push_back(buf[static_cast<size_t>(t) + 1]);
            }
            batch.cu_seqlens.assign(static_cast<size_t>(entries_), static_cast<int32_t>(row_tokens_));
            batch.cu_seqlens[0] = 0;
            int32_t sum = 0;
            for (size_t d = 0; d < lengths.size(); ++d) {
                sum += static_cast<int32_t>(lengths[d]);
                batch.cu_seqlens.at(d + 1) = sum;
            }
            batches.push_back(std::move(batch));
        }
        i_ = idx;
        return batches;
    }

    std::vector<std::vector<uint16_t>> shards_;
    int64_t row_tokens_, entries_;
    uint16_t bos_;
    size_t shard_ = 0, i_ = 0;
    std::vector<int64_t> bos_idx_;
};

}  // namespace speedrun

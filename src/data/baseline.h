#pragma once
#include <cstdint>
#include <filesystem>
#include <span>

namespace speedrun {

// Cross-entropy of two counting models, in nats per token: what a trained model has to beat.
struct BaselineLosses {
    double unigram = 0, bigram = 0;
    int64_t train_tokens = 0;  // counted
    int64_t val_tokens = 0;    // predicted: all but the first of each validation shard
};

// Counts the training shards and scores the validation shards. With c() counts in training, N tokens,
// vocabulary V:
//   unigram, add-one:                 P(w)     = (c(w) + 1) / (N + V)
//   bigram, interpolated absolute     P(w | v) = max(c(v w) - D, 0) / c(v .) + D n(v .) / c(v .) * P(w)
//   discounting:                      P(w | v) = P(w) where v is new
// where n(v .) is how many different tokens follow v, and D = (n1 + 0.5) / (n1 + 2 n2 + 1) with n1 (n2) the
// number of pairs seen once (twice): Ney, Essen and Kneser 1994, kept within (0, 1). Needs 4 bytes of memory
// a training token. UserError for malformed shards and tokens >= vocab_size (at most 65536), or if there is
// nothing to predict.
BaselineLosses count_baselines(std::span<const std::filesystem::path> train,
                               std::span<const std::filesystem::path> val, int64_t vocab_size);

}  // namespace speedrun

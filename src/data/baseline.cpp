#include "data/baseline.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "data/shard.h"
#include "util/error.h"

namespace speedrun {
namespace {

using Pair = uint32_t;  // first token << 16 | second

Pair pair_of(uint16_t first, uint16_t second) {
    return Pair{first} << 16 | second;
}

Shard open_checked(const std::filesystem::path& path, int64_t vocab_size) {
    Shard shard(path);
    shard.check_tokens(vocab_size);
    return shard;
}

class CountingModels {
  public:
    CountingModels(std::span<const std::filesystem::path> train, int64_t vocab_size)
        : unigrams_(static_cast<size_t>(vocab_size), 0), contexts_(static_cast<size_t>(vocab_size)) {
        std::vector<Pair> pairs;
        for (const auto& path : train) {
            const Shard shard = open_checked(path, vocab_size);
            const auto tokens = shard.tokens();
            for (const uint16_t token : tokens) ++unigrams_[token];
            for (size_t i = 1; i < tokens.size(); ++i) pairs.push_back(pair_of(tokens[i - 1], tokens[i]));
            tokens_ += static_cast<int64_t>(tokens.size());
        }
        std::sort(pairs.begin(), pairs.end());
        count_pairs(pairs);
    }

    int64_t tokens() const { return tokens_; }

    double unigram(uint16_t token) const {
        return static_cast<double>(unigrams_[token] + 1) /
               static_cast<double>(tokens_ + std::ssize(unigrams_));
    }

    double bigram(uint16_t first, uint16_t second) const {
        const Context& context = contexts_[first];
        if (context.total == 0) return unigram(second);
        const auto total = static_cast<double>(context.total);
        const double seen = std::max(static_cast<double>(count(first, second)) - discount_, 0.0) / total;
        return seen + discount_ * static_cast<double>(context.different) / total * unigram(second);
    }

  private:
    struct Context {
        int64_t total = 0, different = 0;  // c(v .), n(v .)
    };

    void count_pairs(const std::vector<Pair>& sorted) {
        int64_t once = 0, twice = 0;
        for (size_t i = 0, end = 0; i < sorted.size(); i = end) {
            while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
            pairs_.push_back(sorted[i]);
            counts_.push_back(static_cast<uint32_t>(end - i));
            Context& context = contexts_[sorted[i] >> 16];
            context.total += counts_.back();
            ++context.different;
            once += counts_.back() == 1;
            twice += counts_.back() == 2;
        }
        discount_ = (static_cast<double>(once) + 0.5) / static_cast<double>(once + 2 * twice + 1);
    }

    uint32_t count(uint16_t first, uint16_t second) const {
        const Pair pair = pair_of(first, second);
        const auto at = std::lower_bound(pairs_.begin(), pairs_.end(), pair);
        return at != pairs_.end() && *at == pair ? counts_[static_cast<size_t>(at - pairs_.begin())] : 0;
    }

    std::vector<int64_t> unigrams_;
    std::vector<Context> contexts_;
    std::vector<Pair> pairs_;  // different ones, ascending
    std::vector<uint32_t> counts_;
    double discount_ = 0;
    int64_t tokens_ = 0;
};

}  // namespace

BaselineLosses count_baselines(std::span<const std::filesystem::path> train,
                               std::span<const std::filesystem::path> val, int64_t vocab_size) {
    check(vocab_size > 0 && vocab_size <= 65536, "vocabulary of 16-bit tokens");
    const CountingModels models(train, vocab_size);
    BaselineLosses losses{0, 0, models.tokens(), 0};
    for (const auto& path : val) {
        const Shard shard = open_checked(path, vocab_size);
        const auto tokens = shard.tokens();
        for (size_t i = 1; i < tokens.size(); ++i) {
            losses.unigram -= std::log(models.unigram(tokens[i]));
            losses.bigram -= std::log(models.bigram(tokens[i - 1], tokens[i]));
            ++losses.val_tokens;
        }
    }
    if (losses.val_tokens == 0) throw UserError("the validation shards have no token to predict");
    losses.unigram /= static_cast<double>(losses.val_tokens);
    losses.bigram /= static_cast<double>(losses.val_tokens);
    return losses;
}

}  // namespace speedrun

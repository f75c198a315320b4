#pragma once
// The deterministic inputs of the golden run of record 43, as its Python generator makes them: parameters and
// shards. A tiny model: dim 128, 2 heads of 64, 12 layers, vocabulary 500 padded to 512.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace speedrun::golden {

inline constexpr int64_t kDim = 128, kHeads = 2, kLayers = 12;
inline constexpr int64_t kVocab = 500, kPaddedVocab = 512, kBos = 499;

// uniform(name, i) in [0, 1): SplitMix64 from the FNV-1a hash of the name.
class Uniform {
  public:
    explicit Uniform(std::string_view name) {
        for (const char c : name) seed_ = (seed_ ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
    }
    double operator()(uint64_t i) const {
        uint64_t z = seed_ + (i + 1) * 0x9E3779B97F4A7C15u;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        return static_cast<double>(z >> 11) * 0x1p-53;
    }

  private:
    uint64_t seed_ = 0xCBF29CE484222325u;
};

// Nearest bf16 value, ties to even.
inline float round_bf16(float x) {
    const uint64_t bits = std::bit_cast<uint32_t>(x);
    return std::bit_cast<float>(static_cast<uint32_t>((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000u));
}

struct Parameter {
    std::string name;  // the reference's state_dict name
    std::vector<int64_t> shape;
    double std;
    bool bf16;                  // stored as bf16 by the reference; the values are rounded to it
    std::vector<float> values;  // in C order
};

// Where the scalars lie: skip weights, block lambdas (x, x0), value lambdas (v, ve), smear, backout.
inline double scalar_base(int64_t i) {
    if (i < kLayers) return -1.5;
    if (i < 3 * kLayers) return i % 2 == 0 ? 1.0 : 0.0;
    if (i < 5 * kLayers) return 0.5;
    return i == 5 * kLayers ? 0.25 : 0.5;
}

// Names, shapes and scales in the reference's named_parameters() order, values still empty.
inline std::vector<Parameter> parameter_list() {
    const double s = 0.5 / std::sqrt(static_cast<double>(kDim));
    std::vector<Parameter> out;
    const auto add = [&](std::string name, std::vector<int64_t> shape, double std_dev, bool bf16) {
        out.push_back({std::move(name), std::move(shape), std_dev, bf16, {}});
    };
    add("scalars", {5 * kLayers + 2}, 0.1, false);
    add("embed.weight", {kPaddedVocab, kDim}, 1.0, true);
    add("smear_gate.weight", {1, 12}, 0.3, true);
    for (int i = 0; i < 3; ++i)
        add("value_embeds." + std::to_string(i) + ".weight", {kPaddedVocab, kDim}, 1.0, true);
    for (int64_t i = 1; i < kLayers; ++i) {
        const std::string block = "blocks." + std::to_string(i) + ".";
        if (i != 7) {
            add(block + "attn.qkvo_w", {kDim, 4 * kDim}, s, false);
            add(block + "attn.attn_gate.weight", {kHeads, 12}, 0.3, true);
        }
        add(block + "mlp.c_fc", {kDim, 4 * kDim}, s, false);
        add(block + "mlp.c_proj", {kDim, 4 * kDim}, s / 2, false);
    }
    add("lm_head.weight", {kPaddedVocab, kDim}, 0.05, true);
    return out;
}

// All parameters with their initial values; `scalars` is padded with ones to a multiple of world_size.
inline std::vector<Parameter> init_params(int64_t world_size = 1) {
    std::vector<Parameter> params = parameter_list();
    for (Parameter& p : params) {
        int64_t count = 1;
        for (const int64_t n : p.shape) count *= n;
        const Uniform uniform(p.name);
        const double scale = p.std * std::sqrt(12.0);
        for (int64_t i = 0; i < count; ++i) {
            const double base = p.name == "scalars" ? scalar_base(i) : 0.0;
            const auto value = static_cast<float>(scale * (uniform(static_cast<uint64_t>(i)) - 0.5) + base);
            p.values.push_back(p.bf16 ? round_bf16(value) : value);
        }
        if (p.name == "scalars") {
            while (static_cast<int64_t>(p.values.size()) % world_size != 0) p.values.push_back(1.0f);
            p.shape = {static_cast<int64_t>(p.values.size())};
        }
    }
    return params;
}

// BOS-led documents of cycling lengths; inside one, with probability 0.6 next = (7 prev + 3) % bos, else
// floor(bos u^2).
// `long_first`: the fourth document comes before the first three.
inline std::vector<uint16_t> make_tokens_of(std::string_view name, int64_t count, int64_t bos,
                                            bool long_first = false) {
    std::array<int64_t, 20> lengths{21, 3, 1,  170, 60, 2,  44,  230, 7,  100,
                                    1,  1, 85, 300, 12, 36, 145, 5,   70, 28};
    if (long_first) std::rotate(lengths.begin(), lengths.begin() + 3, lengths.begin() + 4);
    const Uniform uniform(name);
    std::vector<uint16_t> out;
    for (int64_t document = 0; static_cast<int64_t>(out.size()) < count; ++document) {
        int64_t length = lengths[static_cast<size_t>(document) % lengths.size()];
        if (length > 3) length += (document / 20) % 7;
        int64_t prev = 0;
        for (int64_t j = 0; j < length && static_cast<int64_t>(out.size()) < count; ++j) {
            const uint64_t at = out.size();
            if (j == 0) {
                out.push_back(static_cast<uint16_t>(bos));
                continue;
            }
            const double u = uniform(2 * at + 1);
            prev = uniform(2 * at) < 0.6 ? (7 * prev + 3) % bos
                                         : static_cast<int64_t>(static_cast<double>(bos) * u * u);
            out.push_back(static_cast<uint16_t>(prev));
        }
    }
    return out;
}

inline std::vector<uint16_t> make_tokens(std::string_view name, int64_t count, int64_t bos = kBos) {
    return make_tokens_of("tokens." + std::string(name), count, bos);
}
// The same of generators whose names begin with a salt.
inline std::vector<uint16_t> make_tokens(const std::string& salt, const std::string& name, int64_t count,
                                         bool long_first = false) {
    return make_tokens_of(salt + "tokens." + name, count, kBos, long_first);
}

// The golden run's shards: training (the second is only reached by a loader that outlives the run) and
// validation.
inline std::vector<uint16_t> train_tokens_1() {
    return make_tokens("train1", 50000);
}
inline std::vector<uint16_t> train_tokens_2() {
    return make_tokens("train2", 6000);
}
inline std::vector<uint16_t> val_tokens() {
    return make_tokens("val", 10000);
}

}  // namespace speedrun::golden

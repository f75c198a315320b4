#pragma once
// Initial weights of the ladder's golden runs, as their Python generators make them: what is common to all
// stations follows from the config, the rest is a table.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "data/shard.h"
#include "model/parameters.h"
#include "support/golden_inputs.h"
#include "util/error.h"
#include "util/safetensors.h"

namespace speedrun::golden {

// One station of the ladder: a record that the Python was run for, or a run of track 3.
struct Station {
    int64_t record;    // 0: none, and `track_3` says which run it is
    std::string salt;  // in front of every name, in the generator
    int64_t val_tokens;
    // Standard deviation by the end of a parameter's name in the reference; the longest end counts. "d": in
    // units of 1 / sqrt(d_model).
    std::map<std::string, double> spread;
    std::map<std::string, double> spread_per_sqrt_d;
    bool embed_is_head = false;       // the embedding begins as the head's matrix, or as its transpose
    bool embed_follows_head = false;  // and remains that while they are tied
    bool banks_are_padded = false;    // with zeros, and projections back begin at half the spread
    bool long_document_first = false;
    // Of training, by names of the generator and numbers of tokens; the validation shard is "val" or, like
    // them, has a name of six digits.
    std::vector<std::pair<std::string, int64_t>> train_shards = {{"train1", 90000}};
    std::string val_shard = "val";
    std::string track_3 = {};

    std::string name() const { return record == 0 ? track_3 : "record_" + std::to_string(record); }
    // A config that extends the run's own, and the Python's numbers.
    std::string config() const { return SPEEDRUN_SOURCE_DIR "/tests/golden/" + name() + "_tiny.json"; }
    std::string numbers() const {
        return SPEEDRUN_SOURCE_DIR "/tests/golden/" +
               (record == 0 ? track_3 : "record" + std::to_string(record)) + ".json";
    }
};

// train_1.bin, train_2.bin, ... and val_0.bin
inline void write_shards(const Station& station, const std::filesystem::path& folder) {
    const auto tokens = [&](const std::string& name, int64_t count) {
        return make_tokens(station.salt, name, count, station.long_document_first);
    };
    int index = 0;
    for (const auto& [name, count] : station.train_shards)
        write_shard(folder / ("train_" + std::to_string(++index) + ".bin"), tokens(name, count));
    write_shard(folder / "val_0.bin", tokens(station.val_shard, station.val_tokens));
}

// What a bank's element i of `count` has of its parameter's spread, where banks_are_padded.
inline double share_of_spread(const std::string& name, int64_t i, int64_t count) {
    if (name == "qk_bank") return i < count / 64 * 60 ? 1 : 0;
    if (name == "vo_bank") return i < count / 24 * 20 ? 1 : 0;
    if (name != "mlp_bank") return 1;
    const int64_t matrix = i / (count / 24);
    return matrix % 2 == 0 ? 1 : matrix == 23 ? 0 : 0.5;
}

// The values of a matrix turned.
inline Parameter transpose_of(const Parameter& from, const std::string& name) {
    Parameter to{name, {from.shape[1], from.shape[0]}, from.std, from.bf16, {}};
    for (int64_t i = 0; i < from.shape[1]; ++i)
        for (int64_t j = 0; j < from.shape[0]; ++j)
            to.values.push_back(from.values[static_cast<size_t>(j * from.shape[1] + i)]);
    return to;
}

inline double spread_of(const Station& station, const std::string& name, int64_t d_model) {
    double spread = -1;
    size_t longest = 0;
    const auto look = [&](const std::map<std::string, double>& table, double unit) {
        for (const auto& [end, value] : table)
            if (name.ends_with(end) && end.size() >= longest) spread = value * unit, longest = end.size();
    };
    look(station.spread, 1);
    look(station.spread_per_sqrt_d, 1 / std::sqrt(static_cast<double>(d_model)));
    check(spread >= 0, "no spread for " + name);
    return spread;
}

// The slices' own initial values, but for the smear coefficient, which the generator puts at a quarter.
inline std::vector<double> bases_of(const ParamConfig& param, int64_t count) {
    const bool constant = param.init.front().kind == Init::Kind::constant;
    std::vector<double> bases(static_cast<size_t>(count), constant ? param.init.front().value : 0);
    for (const Slice& slice : param.slices) {
        const int64_t size =
            std::accumulate(slice.shape.begin(), slice.shape.end(), int64_t{1}, std::multiplies<>());
        for (int64_t i = 0; i < size; ++i)
            bases[static_cast<size_t>(slice.at + i)] =
                slice.name == "smear" ? 0.25 : slice.init[static_cast<size_t>(i) % slice.init.size()];
    }
    return bases;
}

inline Parameter initial_weight(const Station& station, const ParamConfig& param, const StateDictEntry& entry,
                                int64_t d_model) {
    const int64_t count =
        std::accumulate(entry.shape.begin(), entry.shape.end(), int64_t{1}, std::multiplies<>());
    const bool signs = param.init.front().kind == Init::Kind::random_sign;
    Parameter made{entry.name,
                   entry.shape,
                   signs ? 1 : spread_of(station, entry.name, d_model),
                   param.dtype == Dtype::bf16,
                   {}};
    const Uniform uniform(station.salt + entry.name);
    for (int64_t i = 0; signs && i < count; ++i)
        made.values.push_back(uniform(static_cast<uint64_t>(i)) < 0.5 ? -1.0F : 1.0F);
    if (signs) return made;
    const std::vector<double> bases = bases_of(param, count);
    for (int64_t i = 0; i < count; ++i) {
        const double noise = std::sqrt(12.0) * (uniform(static_cast<uint64_t>(i)) - 0.5);
        const double std =
            station.banks_are_padded ? made.std * share_of_spread(entry.name, i, count) : made.std;
        const auto value = static_cast<float>(bases[static_cast<size_t>(i)] + std * noise);
        made.values.push_back(made.bf16 ? round_bf16(value) : value);
    }
    return made;
}

inline void write_initial_weights(const Station& station, const ParameterTable& table, int64_t d_model,
                                  const std::filesystem::path& path) {
    std::vector<Parameter> made;
    for (const speedrun::Parameter& parameter : table.all())
        for (const StateDictEntry& entry : state_dict_entries(parameter.config))
            made.push_back(initial_weight(station, parameter.config, entry, d_model));
    const auto named = [&](const char* name) { return std::ranges::find(made, name, &Parameter::name); };
    if (station.embed_is_head) {
        const Parameter head = *named("lm_head.weight");
        const auto embed = named("embed.weight");
        *embed = head.shape == embed->shape
                     ? Parameter{embed->name, head.shape, head.std, head.bf16, head.values}
                     : transpose_of(head, embed->name);
    }
    std::vector<SafeTensor> tensors;
    for (const Parameter& p : made)
        tensors.push_back({p.name, "F32", p.shape, std::as_bytes(std::span(p.values))});
    write_safetensors(path, tensors);
}

// A run of track 3: the baseline, "track_3", or result 46, "track_3_r46". The first shard is a token too
// short for a fifth step.
inline Station track_3(const std::string& run = "track_3") {
    const double root_of_third = std::sqrt(0.33);
    Station track{0,
                  "",
                  3000,
                  {{"embed.weight", 1}, {"proj.weight", 0.05}, {".bias", 0.1}, {".gains", 0.1}},
                  {{"attn.q.weight", root_of_third},
                   {"attn.k.weight", root_of_third},
                   {"attn.v.weight", root_of_third},
                   {"mlp.fc.weight", root_of_third},
                   {"attn.proj.weight", 0.5},
                   {"mlp.proj.weight", 0.25}}};
    track.train_shards = {{"train_000001", 2561}, {"train_000002", 6000}};
    track.val_shard = "val_000000";
    track.track_3 = run;
    return track;
}

inline const std::vector<Station>& stations() {
    using Spread = std::map<std::string, double>;
    const Spread bf16{{"embed.weight", 1.0}, {"gate.weight", 0.3}, {"scalars", 0.1}, {"x0_lambdas", 0.1}};
    const auto with = [](Spread spread, const Spread& more) {
        for (const auto& [name, value] : more) spread[name] = value;
        return spread;
    };
    const Spread matrices{{"qkvo_w", 0.5}, {"c_fc", 0.5}, {"c_proj", 0.25}};
    const Spread value_embeds{{".0.weight", 0.5}, {".1.weight", 0.5}, {".2.weight", 0.5}};
    const Spread banks = with(with(bf16, value_embeds), {{"smear_gate.weight", 0.5},
                                                         {"gate_bank", 0.3},
                                                         {"lm_head.weight", 0.05},
                                                         {"bigram_embed.weight", 0.5}});
    const Spread lanes = with(banks, {{"value_embeds", 0.5}}), lambdas{{"_lambdas", 0.1}};
    const Spread attn_and_mlp{{"attn_bank", 0.5}, {"mlp_bank", 0.5}};
    const Station last{85,
                       "",
                       10000,
                       with(with(lanes, lambdas), {{"smear_gate.weight", 2.0},
                                                   {"value_embeds", 0.2},
                                                   {"mudd_w1", 0.03},
                                                   {"mudd_w2", 0.06},
                                                   {"mudd_b2", 1.0},
                                                   {"mudd_gate_w1", 0.08},
                                                   {"mudd_gate_w2", 0.15},
                                                   {"mudd_gate_b2", 2.0},
                                                   {"_mudd_gate_scale", 0.01}}),
                       {{"qk_bank", 0.5}, {"vo_bank", 0.5}, {"mlp_bank", 0.5}},
                       true,
                       true,
                       true,
                       true};
    Station prefixes = last;
    prefixes.record = 89;
    static const std::vector<Station> all{
        {46, "", 10000,
         with(bf16, {{"lm_head.weight", 0.05}, {".0.weight", 1}, {".1.weight", 1}, {".2.weight", 1}}),
         matrices},
        {49, "", 10000, with(with(bf16, value_embeds), {{"lm_head.weight", 0.05}}), matrices},
        {53, "", 10000, with(with(bf16, value_embeds), {{"lm_head.weight", 0.1}}),
         with(matrices, {{"qkvo_w", 1}})},
        {58, "record58/dev/", 4000, banks, matrices, /*embed_is_head=*/true},
        {62,
         "record62/dev/",
         8000,
         banks,
         {{"attn_bank", 0.5}, {"mlp_bank", 0.5}},
         /*embed_is_head=*/true,
         true},
        {73, "record73/dev/", 4000, with(lanes, {{"w_post", 0.1}, {"_lambda", 0.1}}), attn_and_mlp, true,
         true},
        {77, "record77/dev/", 4000, with(lanes, lambdas), attn_and_mlp, true, true},
        {80,
         "",
         10000,
         with(with(lanes, lambdas), {{"smear_gate.weight", 2.0}, {"value_embeds", 0.2}}),
         {{"qk_bank", 0.5}, {"vo_bank", 0.5}, {"mlp_bank", 0.5}},
         true,
         true,
         /*banks_are_padded=*/true,
         /*long_document_first=*/true},
        {82,
         "",
         10000,
         with(with(lanes, lambdas), {{"smear_gate.weight", 2.0},
                                     {"value_embeds", 0.2},
                                     {"xsa_alphas", 0.3},
                                     {"mudd_w1", 0.03},
                                     {"mudd_w2", 0.06},
                                     {"mudd_b2", 1.0}}),
         {{"qk_bank", 0.5}, {"vo_bank", 0.5}, {"mlp_bank", 0.5}},
         true,
         true,
         true,
         true},
        last,
        prefixes,
    };
    return all;
}

}  // namespace speedrun::golden

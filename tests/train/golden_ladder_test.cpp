// The ladder's stations: records' own train_gpt.py, run on tiny models in fp64, against this program in fp32.
// Batches, schedule, gradients, weights, losses, validations, moments at the end; checksums and tolerances as
// in golden_test.cpp (tests/golden/recordNN.json, "about").
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/prefix_table.h"
#include "data/step_shapes.h"
#include "model/gpt.h"
#include "model/load_config.h"
#include "model/weights.h"
#include "optim/optimizer.h"
#include "support/golden_batches.h"
#include "support/golden_ladder.h"
#include "support/golden_match.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

class Ladder : public ::testing::TestWithParam<golden::Station> {
  protected:
    explicit Ladder(const std::vector<std::string>& overrides = {})
        : golden_(read_json(GetParam().numbers())), config_(load_config(GetParam().config(), overrides)) {
        golden::write_shards(GetParam(), folder_.path());
        config_.data.train = folder_ / "train_*.bin";
        config_.data.val = folder_ / "val_*.bin";
        const bool prefixes = !config_.data.prefix_table.empty();  // relative to the project's folder
        if (prefixes) config_.data.prefix_table = SPEEDRUN_SOURCE_DIR "/" + config_.data.prefix_table;
        const int64_t longest = std::max(config_.data.val_micro_batch_tokens, row_lengths(config_).back());
        model_ = std::make_unique<GPT>(config_, longest, at::kCPU);
        const auto weights = folder_ / "init.safetensors";
        if (prefixes) model_->use_prefixes(load_prefix_table(config_));
        golden::write_initial_weights(GetParam(), model_->parameters(), config_.model.d_model, weights);
        load_weights(model_->parameters(), weights);
        optimizer_ = std::make_unique<Optimizer>(config_, model_->parameters(), *communicator_);
        loader_ = std::make_unique<TrainLoader>(find_shards(config_.data.train), data_layout(config_.data));
    }

    // What the numbers have under names of their own: a whole entry, or the matrices in it.
    static std::vector<std::pair<std::string, at::Tensor>> pieces_of(const json& listed,
                                                                     const StateDictEntry& entry,
                                                                     const at::Tensor& bank) {
        const at::Tensor x = entry.of(bank);
        std::vector<std::pair<std::string, at::Tensor>> pieces;
        const auto projections = [&](const std::string& name, const at::Tensor& qkvo) {
            const auto parts = qkvo.reshape({4, -1}).unbind();
            for (size_t j = 0; j < parts.size(); ++j) pieces.emplace_back(name + "." + "qkvo"[j], parts[j]);
        };
        if (listed.contains(entry.name)) return {{entry.name, x}};
        if (listed.contains(entry.name + ".q")) projections(entry.name, x);
        if (listed.contains(entry.name + "[0]")) {
            const auto tables = x.view({bank.size(0), -1}).unbind();
            for (size_t k = 0; k < tables.size(); ++k)
                pieces.emplace_back(fmt::format("{}[{}]", entry.name, k), tables[k]);
        }
        if (listed.contains(entry.name + "[0].q"))
            for (int64_t k = 0; k < x.size(0); ++k) projections(fmt::format("{}[{}]", entry.name, k), x[k]);
        if (listed.contains(entry.name + "[0,0]"))
            for (int64_t k = 0; k < x.size(0); ++k)
                for (int64_t j = 0; j < 2; ++j)
                    pieces.emplace_back(fmt::format("{}[{},{}]", entry.name, k, j), x[k][j]);
        return pieces;
    }

    // What the reference lists; a parameter that it does not list has no gradient.
    void expect_tensors(const std::string& tag, at::Tensor Parameter::*which, double scale = 1) {
        const json& listed = golden_.at("tensors").at(tag);
        const bool some = tag.starts_with("grad_step") && tag != "grad_step0" && tag != "grad_step1";
        // While tied, this program's head has both gradients; record 62's reference adds them in the
        // optimizer.
        const bool apart = tag.starts_with("grad") && listed.contains("embed.weight") && tied_;
        size_t compared = 0, flipped = 0;
        for (const Parameter& parameter : model_->parameters().all())
            for (const StateDictEntry& entry : state_dict_entries(parameter.config)) {
                if (rule_of(parameter) == OptimParamConfig::Rule::none) {
                    expect_signs(parameter.value);
                    continue;
                }
                if (apart && (entry.name == "embed.weight" || entry.name == "lm_head.weight")) {
                    ++compared;
                    continue;
                }
                // Records 53 to 60 leave the embedding alone while nothing reads it; here it follows the
                // head.
                if (tied_ && !GetParam().embed_follows_head && entry.name == "embed.weight" &&
                    tag.starts_with("weights")) {
                    ++compared;
                    continue;
                }
                const auto pieces = pieces_of(listed, entry, parameter.*which);
                for (const auto& [name, part] : pieces) {
                    const double excess = excess_of(listed.at(name), part * scale);
                    if (excess > 0 && excess <= flipped_decay(parameter, tag))
                        ++flipped;
                    else
                        expect_matches(listed.at(name), part * scale, tag + " " + name);
                }
                compared += pieces.size();
                if (!pieces.empty() || some) continue;
                EXPECT_EQ(entry.of(parameter.*which).count_nonzero().item<int64_t>(), 0)
                    << tag << " " << entry.name;
            }
        EXPECT_EQ(compared, listed.size()) << tag;
        EXPECT_LE(flipped, 1U) << tag;
        if (apart) expect_sum_of_tied(tag, listed, scale);
    }

    OptimParamConfig::Rule rule_of(const Parameter& parameter) const {
        return std::ranges::find(config_.optimizer.params, parameter.config.name, &OptimParamConfig::param)
            ->rule;
    }

    // The buffer of signs, always as it began.
    void expect_signs(const at::Tensor& signs) {
        const json& listed = golden_.at("bigram").at("sign_table");
        const at::Tensor x = signs.to(at::kDouble).view(-1);
        EXPECT_EQ(at_checksum(x, "sum"), listed.at("sum").get<double>());
        EXPECT_NEAR(at_checksum(x, "proj"), listed.at("proj").get<double>(), 1e-9);  // as it is written
    }

    // Cautious decay takes a share of an entry or nothing. Where the update is rounding noise, so is its
    // sign: one entry may be off by its share, in one tensor, which the tolerances of records 46 to 53 have
    // no room for.
    double flipped_decay(const Parameter& parameter, const std::string& tag) const {
        if (!tag.starts_with("weights")) return 0;
        const OptimizerConfig& optimizer = config_.optimizer;
        const auto row = std::ranges::find(optimizer.params, parameter.config.name, &OptimParamConfig::param);
        if (row->rule != OptimParamConfig::Rule::matrix) return 0;
        const double lr = optimizer.matrix.lr;
        return lr * lr * optimizer.matrix.weight_decay * row->lr_mul *
               parameter.value.abs().max().item<double>();
    }

    // The sum of two gradients has the sum of their sums.
    void expect_sum_of_tied(const std::string& tag, const json& listed, double scale) {
        const json &embed = listed.at("embed.weight"), &head = listed.at("lm_head.weight");
        const auto of = [](const json& x, const char* kind) { return x.at(kind).at("sum").get<double>(); };
        const double found = model_->parameters()["lm_head"].grad.sum(at::kDouble).item<double>() * scale;
        EXPECT_NEAR(found, of(embed, "f64") + of(head, "f64"), of(embed, "tol") + of(head, "tol")) << tag;
    }

    void expect_state(const std::string& tag, const std::string& what) {
        const json& listed = golden_.at("tensors").at(tag);
        const std::vector<NamedTensor> state = optimizer_->state();
        size_t compared = 0;
        for (const Parameter& parameter : model_->parameters().all()) {
            const at::Tensor bank = at::zeros_like(parameter.value);
            bool there = false;
            for (const NamedTensor& part : state) {
                if (part.name != parameter.config.name + "." + what) continue;
                bank.view(-1).narrow(0, part.begin, part.tensor.numel()).copy_(part.tensor.view(-1));
                there = true;
            }
            if (!there) continue;
            for (const StateDictEntry& entry : state_dict_entries(parameter.config))
                for (const auto& [name, part] : pieces_of(listed, entry, bank)) {
                    const at::Tensor x = part.to(at::kDouble);
                    const json &f64 = listed.at(name).at("f64"), &tol = listed.at(name).at("tol");
                    const auto near = [&](const char* kind, double value) {
                        EXPECT_NEAR(value, f64.at(kind).get<double>(), tol.at(kind).get<double>())
                            << tag << " " << name << " " << kind;
                    };
                    near("l2", x.norm().item<double>());
                    if (tol.contains("sum")) near("sum", x.sum().item<double>());
                    ++compared;
                }
        }
        EXPECT_EQ(compared, listed.size()) << tag;
    }

    std::vector<Batch> next_batches(const StepSettings& settings) {
        const auto batches = loader_->next_step(step_shape(config_.data, settings));
        const json& expected = golden_.at("batches");
        const std::string step = std::to_string(settings.step);
        if (expected.contains(step)) {
            EXPECT_EQ(batches.size(), expected[step].size());
            for (size_t i = 0; i < batches.size(); ++i) golden::expect_batch(batches[i], expected[step][i]);
        }
        return batches;
    }

    void expect_schedule(const StepSettings& settings) {
        const json& expected = golden_.at("schedule").at(std::to_string(settings.step));
        EXPECT_NEAR(settings.lr_scale, expected["lr_scale"].get<double>(), 1e-12);
        EXPECT_NEAR(settings.muon_momentum, expected["muon_momentum"].get<double>(), 1e-12);
        EXPECT_EQ(settings.batch_tokens, expected["batch_tokens"].get<int64_t>());
        EXPECT_EQ(settings.window_short, expected["short_window_tokens"].get<int64_t>());
        EXPECT_EQ(settings.window_long, expected["long_window_tokens"].get<int64_t>());
        EXPECT_EQ(settings.adam_steps, expected["adam_steps"].get<bool>());
        if (!expected.contains("mtp_weights")) return;
        const auto weights = expected["mtp_weights"].get<std::vector<double>>();
        ASSERT_EQ(settings.mtp_weights.size(), weights.size()) << settings.step;
        for (size_t k = 0; k < weights.size(); ++k) EXPECT_NEAR(settings.mtp_weights[k], weights[k], 1e-12);
        if (expected.contains("prefix_weight") && expected["prefix_weight"].is_number()) {
            EXPECT_NEAR(settings.prefix_weight.value_or(0), expected["prefix_weight"].get<double>(), 1e-12);
        }
    }

    void train_step(const StepSettings& settings) {
        tied_ = settings.tied;
        SCOPED_TRACE("step " + std::to_string(settings.step));
        expect_schedule(settings);
        const std::string key = std::to_string(settings.step);
        const auto sums = accumulate_gradients(*model_, config_, next_batches(settings), settings);
        const double loss = at::stack(sums).sum().item<double>() / static_cast<double>(settings.batch_tokens);
        const json& losses = golden_["losses"][key];
        EXPECT_NEAR(loss, losses["mean_f64"].get<double>(), losses["tol_mean"].get<double>());
        const std::string grads = "grad_step" + key,
                          weights = "weights_after" + std::to_string(settings.step + 1);
        if (golden_["tensors"].contains(grads))
            expect_tensors(grads, &Parameter::grad, gradient_scale(config_.objective, 1));
        optimizer_->step(settings);
        if (golden_["tensors"].contains(weights)) expect_tensors(weights, &Parameter::value);
        EXPECT_DOUBLE_EQ(model_->rotary().attn_scale(), golden_["schedule"][key]["attn_scale"].get<double>());
    }

    // The tables of half a head, or where pairs are neighbours each angle twice, sines with their signs.
    void expect_tables(const json& yarn) {
        const Rotary& rotary = model_->rotary();
        const at::Tensor freq = at::tensor(rotary.angular_freq());
        if (yarn.contains("cos")) {
            expect_matches(yarn["cos"], rotary.cos(), "cos");
            expect_matches(yarn["sin"], rotary.sin(), "sin");
            return expect_matches(yarn["angular_freq"], freq, "angular_freq");
        }
        const at::Tensor signs = at::tensor({1.0, -1.0}).repeat(rotary.cos().size(1));
        expect_matches(yarn["yarn.factor1"], rotary.cos().repeat_interleave(2, 1), "factor1");
        expect_matches(yarn["yarn.factor2"], rotary.sin().repeat_interleave(2, 1) * signs, "factor2");
        expect_matches(yarn["yarn.angular_freq"], freq.repeat_interleave(2), "angular_freq");
    }

    bool tied_ = false;  // in the step that is compared
    TemporaryFolder folder_;
    json golden_;
    Config config_;
    std::unique_ptr<Communicator> communicator_ = make_self_communicator();
    std::unique_ptr<GPT> model_;
    std::unique_ptr<Optimizer> optimizer_;
    std::unique_ptr<TrainLoader> loader_;
};

TEST_P(Ladder, InitialWeightsAndPrefixes) {
    expect_tensors("init", &Parameter::value);
    if (golden_.contains("prefix_table")) {
        EXPECT_EQ(load_prefix_table(config_), golden_["prefix_table"].get<std::vector<int64_t>>());
    }
}

TEST_P(Ladder, GradientOfOneMicroBatch) {
    const StepSettings settings = settings_at(config_, 0);
    tied_ = settings.tied;
    model_->forward_backward(next_batches(settings).front(), settings, 1.0 / 8);
    expect_tensors("grad_micro1", &Parameter::grad);
}

TEST_P(Ladder, WholeRun) {
    const ValLoader val_loader(find_shards(config_.data.val), data_layout(config_.data),
                               val_row(config_.data), config_.data.val_tokens);
    const int64_t total = config_.schedule.total_steps();
    for (int64_t step = 0; step <= total; ++step) {
        const StepSettings settings = settings_at(config_, step);
        const std::string key = std::to_string(step);
        EXPECT_EQ(settings.validate, golden_["val"].contains(key)) << step;
        if (settings.validate) {
            const json& val = golden_["val"][key];
            EXPECT_NEAR(validate(*model_, val_loader, settings, *communicator_),
                        val["nats_f64"].get<double>(), val["tol"].get<double>())
                << "validation at step " << step;
        }
        if (settings.trains) train_step(settings);
    }
    const std::string after = "_after" + std::to_string(total);
    expect_state("adam_exp_avg" + after, "exp_avg");
    expect_state("adam_exp_avg_sq" + after, "exp_avg_sq");
    expect_state("normuon_momentum" + after, "momentum");
    expect_tables(golden_["tensors"]["yarn_end"]);
}

// The same runs with the records' own dtypes.
class LadderInBf16 : public Ladder {
  protected:
    LadderInBf16()
        : Ladder({"numerics.activations=bf16", "numerics.params=declared", "model.rope.table_dtype=bf16",
                  "optimizer.matrix.orthogonalize.dtype=bf16"}) {}
};

// The Python in bf16 is up to 0.0072 from its fp64 in these steps (records 80, 82, 85 and 89; losses are
// about 10), this program up to 0.0068 (0.0011 to 0.0068, by station). Twice that is allowed.
TEST_P(LadderInBf16, LossesAreNearTheExactOnes) {
    for (int64_t step = 0; step < 4; ++step) {
        const StepSettings settings = settings_at(config_, step);
        const auto sums = accumulate_gradients(*model_, config_, next_batches(settings), settings);
        const double loss = at::stack(sums).sum().item<double>() / static_cast<double>(settings.batch_tokens);
        EXPECT_NEAR(loss, golden_["losses"][std::to_string(step)]["mean_f64"].get<double>(), 0.0136) << step;
        optimizer_->step(settings);
    }
}

INSTANTIATE_TEST_SUITE_P(Record, LadderInBf16, ::testing::ValuesIn(golden::stations()),
                         [](const auto& station) { return std::to_string(station.param.record); });

INSTANTIATE_TEST_SUITE_P(Record, Ladder, ::testing::ValuesIn(golden::stations()),
                         [](const auto& station) { return std::to_string(station.param.record); });

}  // namespace
}  // namespace speedrun

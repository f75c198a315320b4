// The delivered configs against facts of the records they repeat.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "config/config_testing.h"
#include "util/sha256.h"

namespace speedrun {
namespace {

using Shape = std::vector<int64_t>;

TEST(Records, Record43HasTheReferencesNumbers) {
    const Config c = load(record_43);
    EXPECT_EQ(c.record, 43);
    EXPECT_EQ(c.data.train, "data/fineweb10B/fineweb_train_*.bin");
    EXPECT_EQ(c.data.val, "data/fineweb10B/fineweb_val_*.bin");
    EXPECT_EQ(c.data.val_tokens, 10485760);
    EXPECT_EQ(c.data.rows, 8);
    EXPECT_EQ(c.data.val_micro_batch_tokens, 262144);
    EXPECT_EQ(c.data.vocab_size, 50257);
    EXPECT_EQ(c.data.bos_id, 50256);
    EXPECT_EQ(c.data.max_num_docs.entries(32768), 128);
    EXPECT_EQ(c.data.max_num_docs.entries(262144), 896);

    const ModelConfig& m = c.model;
    EXPECT_EQ((Shape{m.vocab_size, m.d_model, m.n_head, m.head_dim, m.n_layer, m.mlp_hidden}),
              (Shape{50304, 768, 6, 128, 12, 3072}));
    EXPECT_EQ(m.norm_eps, std::ldexp(1.0, -23));
    EXPECT_EQ(m.rope.theta, 1024);
    EXPECT_EQ(m.rope.rotary_dims, 64);
    EXPECT_EQ(m.rope.table_dtype, Dtype::bf16);
    EXPECT_EQ(m.rope.yarn_alpha, 1);
    EXPECT_EQ(m.rope.yarn_beta, 32);
    EXPECT_EQ(m.rope.softmax_scale_init, 0.1);
    EXPECT_EQ(m.rope.softmax_scale_log_coef, 0.2);
    EXPECT_EQ(m.input.token, "embed");
    EXPECT_EQ(m.input.value_embeds, "value_embeds");
    ASSERT_TRUE(m.input.smear.has_value());
    EXPECT_EQ(text_of(*m.input.smear, c), "scalars.smear*sigmoid(smear_gate@e[:12])");
    EXPECT_EQ(m.output.head, "lm_head");
    EXPECT_EQ(m.output.softcap.a, 30);
    EXPECT_EQ(m.output.softcap.b, 0);
    EXPECT_EQ(m.output.softcap.c, 7.5);
    EXPECT_EQ(text_of(m.output.mix, c), "1.0 x + -scalars.backout h8");

    EXPECT_EQ(c.objective.accumulation, ObjectiveConfig::Accumulation::sum_then_divide);
    EXPECT_EQ(c.objective.grad_divisor, 8);
    EXPECT_EQ(c.numerics.activations, Dtype::bf16);
    EXPECT_EQ(c.numerics.params, NumericsConfig::Params::declared);
    EXPECT_EQ(c.numerics.lm_head.format, NumericsConfig::Head::Format::fp8);
    EXPECT_DOUBLE_EQ(c.numerics.lm_head.x_scale, std::sqrt(768.0) / 448);
    EXPECT_EQ(c.numerics.lm_head.w_scale, std::ldexp(1.0, -9));
    EXPECT_DOUBLE_EQ(c.numerics.lm_head.grad_scale, 1.0 / 448);
    EXPECT_EQ(c.runtime.warmup_steps, 30);
    EXPECT_EQ(c.runtime.seed, 3867017073u);
}

TEST(Records, Record43Parameters) {
    const Config c = load(record_43);
    struct Row {
        const char *name, *state_dict;
        Dtype dtype;
        Shape shape, layers;
    };
    const Shape attention{1, 2, 3, 4, 5, 6, 8, 9, 10, 11}, mlp{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    const std::vector<Row> rows{
        {"embed", "embed.weight", Dtype::bf16, {50304, 768}, {}},
        {"smear_gate", "smear_gate.weight", Dtype::bf16, {1, 12}, {}},
        {"value_embeds", "value_embeds.{k}.weight", Dtype::bf16, {3, 50304, 768}, {}},
        {"attn_qkvo", "blocks.{i}.attn.qkvo_w", Dtype::fp32, {10, 4, 768, 768}, attention},
        {"attn_gate", "blocks.{i}.attn.attn_gate.weight", Dtype::bf16, {10, 6, 12}, attention},
        {"mlp_fc", "blocks.{i}.mlp.c_fc", Dtype::fp32, {11, 768, 3072}, mlp},
        {"mlp_proj", "blocks.{i}.mlp.c_proj", Dtype::fp32, {11, 768, 3072}, mlp},
        {"lm_head", "lm_head.weight", Dtype::bf16, {50304, 768}, {}},
        {"scalars", "scalars", Dtype::fp32, {64}, {}}};
    ASSERT_EQ(c.model.params.size(), rows.size());
    for (size_t i = 0; i < rows.size(); ++i) {
        const ParamConfig& param = c.model.params[i];
        EXPECT_EQ(param.name, rows[i].name);
        EXPECT_EQ(param.state_dict, rows[i].state_dict);
        EXPECT_EQ(param.dtype, rows[i].dtype) << param.name;
        EXPECT_EQ(param.shape, rows[i].shape) << param.name;
        EXPECT_EQ(param.layers, rows[i].layers) << param.name;
    }
    const Init zeros, normal{Init::Kind::normal, 1}, uniform{Init::Kind::uniform, 0.018042195912175804};
    using Inits = std::vector<Init>;
    EXPECT_EQ(c.model.param("embed").init, Inits{normal});
    EXPECT_EQ(c.model.param("value_embeds").init, Inits{normal});
    EXPECT_EQ(c.model.param("attn_qkvo").init, (Inits{uniform, uniform, uniform, zeros}));
    EXPECT_EQ(c.model.param("attn_qkvo").state_dict_shape, (Shape{768, 3072}));
    EXPECT_EQ(c.model.param("mlp_fc").init, Inits{uniform});
    for (const char* name : {"smear_gate", "attn_gate", "mlp_proj", "lm_head"})
        EXPECT_EQ(c.model.param(name).init, Inits{zeros}) << name;
    const auto& slices = c.model.param("scalars").slices;
    const std::vector<std::pair<std::string, int64_t>> places{{"skip", 0},   {"block", 12},   {"sa", 36},
                                                              {"smear", 60}, {"backout", 61}, {"pad", 62}};
    ASSERT_EQ(slices.size(), places.size());
    for (size_t i = 0; i < places.size(); ++i) {
        EXPECT_EQ(slices[i].name, places[i].first);
        EXPECT_EQ(slices[i].at, places[i].second);
    }
    EXPECT_EQ(slices[0].init, std::vector<double>{-1.5});
    EXPECT_EQ(slices[1].init, (std::vector<double>{1, 0}));
    EXPECT_EQ(slices[2].init, (std::vector<double>{0.5, 0.5}));
    EXPECT_EQ(slices[1].shape, (Shape{12, 2}));
    EXPECT_EQ(slices[3].shape, Shape{});
    EXPECT_THROW(c.model.param("nothing"), InternalError);
}

TEST(Records, Record43LayerPlan) {
    const Config c = load(record_43);
    const std::map<int64_t, std::string> tables{
        {1, "ve.1"}, {2, "ve.2"}, {9, "ve.0"}, {10, "ve.1"}, {11, "ve.2"}};
    const std::map<int64_t, std::string> skips{{6, "h5"}, {7, "h4"}, {8, "h3"}, {9, "h2"}, {10, "h1"}};
    const std::map<int64_t, std::string> caches{{1, "h1"}, {2, "h2"}, {3, "h3"},
                                                {4, "h4"}, {5, "h5"}, {8, "h8"}};
    for (int64_t i = 1; i < 12; ++i) {
        SCOPED_TRACE(i);
        const LayerConfig& layer = c.model.layers[static_cast<size_t>(i)];
        const std::string n = std::to_string(i);
        EXPECT_EQ(text_of(layer.before_attn, c),
                  "scalars.block[" + n + ",0] x + scalars.block[" + n + ",1] x0");
        EXPECT_EQ(text_of(layer.after_mlp, c), "1.0 x + 1.0 mlp_out");
        const Shape stored{768, 3072};
        const int64_t mlp = (i - 1) * 768 * 3072;
        EXPECT_EQ(layer.mlp->fc, (WeightRef{"mlp_fc", mlp, stored}));
        EXPECT_EQ(layer.mlp->proj, (WeightRef{"mlp_proj", mlp, stored}));
        EXPECT_EQ(layer.cache, caches.contains(i) ? caches.at(i) : "");
        const std::string skip =
            skips.contains(i) ? "1.0 x + sigmoid(scalars.skip[" + std::to_string(i - 6) + "]) " + skips.at(i)
                              : "";
        EXPECT_EQ(text_of(layer.entry, c), skip);
        EXPECT_EQ(layer.attn.has_value(), i != 7);
        if (!layer.attn) continue;
        EXPECT_EQ(text_of(layer.after_attn, c), "1.0 x + 1.0 attn_out");
        const int64_t entry = i < 7 ? i - 1 : i - 2, square = 768 * 768;
        EXPECT_EQ(layer.attn->q, (WeightRef{"attn_qkvo", 4 * entry * square, {768, 768}}));
        EXPECT_EQ(layer.attn->o, (WeightRef{"attn_qkvo", (4 * entry + 3) * square, {768, 768}}));
        EXPECT_EQ(layer.attn->window == Window::long_window, i == 4 || i == 11);
        std::string values = "scalars.sa[" + n + ",0] v";
        if (tables.contains(i)) values += " + scalars.sa[" + n + ",1] " + tables.at(i);
        EXPECT_EQ(text_of(layer.attn->v_terms, c), values);
        EXPECT_EQ(text_of(*layer.attn->out_gate, c),
                  "sigmoid(attn_gate[" + std::to_string(entry) + "]@a[:12])");
    }
}

TEST(Records, Record43OptimizerAndSchedule) {
    const Config c = load(record_43);
    const AdamConfig& adam = c.optimizer.adam;
    EXPECT_EQ((std::vector{adam.lr, adam.beta1, adam.beta2, adam.eps, adam.weight_decay}),
              (std::vector{0.008, 0.65, 0.95, 1e-8, 0.0}));
    EXPECT_EQ(adam.state_dtype, AdamConfig::StateDtype::bf16);
    EXPECT_EQ(adam.every_n_steps, 2);
    const MatrixConfig& muon = c.optimizer.matrix;
    EXPECT_EQ((std::vector{muon.lr, muon.beta2, muon.weight_decay, muon.momentum.min, muon.momentum.max}),
              (std::vector{0.03, 0.95, 1.2, 0.85, 0.95}));
    EXPECT_EQ(muon.decay, MatrixConfig::Decay::cautious);
    EXPECT_EQ(muon.rule, "normuon");
    EXPECT_TRUE(muon.momentum.nesterov);
    EXPECT_EQ(muon.momentum.form, MatrixConfig::Momentum::Form::lerp);
    EXPECT_EQ(muon.momentum.warmup_steps, 300);
    EXPECT_EQ(muon.momentum.cooldown_steps, 50);
    EXPECT_EQ(muon.orthogonalize.method, MatrixConfig::Orthogonalize::Method::polar_express);
    EXPECT_EQ(muon.orthogonalize.iters, 5);
    EXPECT_EQ(muon.orthogonalize.dtype, Dtype::bf16);
    EXPECT_EQ(muon.orthogonalize.norm_safety, 1.02);
    EXPECT_EQ(muon.orthogonalize.norm_eps, 1e-6);
    EXPECT_EQ(muon.second_moment, MatrixConfig::SecondMoment::columns);
    EXPECT_EQ(muon.scale, MatrixConfig::Scale::restore_norm);

    const std::map<std::string, std::array<int64_t, 3>> views{{"attn_qkvo", {40, 768, 768}},
                                                              {"mlp_fc", {11, 768, 3072}},
                                                              {"mlp_proj", {11, 768, 3072}},
                                                              {"attn_gate", {10, 6, 12}},
                                                              {"smear_gate", {1, 1, 12}}};
    const std::map<std::string, double> lr_mul{
        {"embed", 75}, {"value_embeds", 75}, {"mlp_fc", 2}, {"scalars", 5}};
    ASSERT_EQ(c.optimizer.params.size(), c.model.params.size());
    for (size_t i = 0; i < c.optimizer.params.size(); ++i) {
        const OptimParamConfig& row = c.optimizer.params[i];
        SCOPED_TRACE(row.param);
        EXPECT_EQ(row.param, c.model.params[i].name);
        EXPECT_EQ(row.rule == OptimParamConfig::Rule::matrix, views.contains(row.param));
        EXPECT_EQ(row.matrix_view,
                  (views.contains(row.param) ? views.at(row.param) : std::array<int64_t, 3>{}));
        EXPECT_EQ(row.lr_mul, lr_mul.contains(row.param) ? lr_mul.at(row.param) : 1);
        EXPECT_EQ(row.wd_mul, 1);
        EXPECT_EQ(row.var_reduce_dim, views.contains(row.param) ? -2 : 0);
    }

    const ScheduleConfig& s = c.schedule;
    EXPECT_EQ((Shape{s.scheduled_steps, s.extension_steps, s.total_steps(), s.block_size}),
              (Shape{2205, 40, 2245, 128}));
    EXPECT_EQ((std::vector{s.lr.cooldown_frac, s.lr.floor, s.lr.clamp_x}), (std::vector{0.5, 0.1, 0.9999}));
    EXPECT_EQ(s.eval.every, 250);
    EXPECT_EQ(s.eval.final_long_window, 20);
    ASSERT_EQ(s.stages.size(), 4u);
    const std::vector<Shape> stages{{0, 1, 3}, {735, 3, 7}, {1470, 5, 11}, {2205, 6, 13}};
    for (size_t k = 0; k < 4; ++k) {
        EXPECT_EQ((Shape{s.stages[k].start, s.stages[k].window_short, s.stages[k].window_long}), stages[k]);
        EXPECT_EQ(s.stages[k].batch_tokens, 262144);
        EXPECT_EQ(s.stages[k].max_seq_len, 2048);
    }
}

// The reference picks the window of step s as int(3 * (s / scheduled_steps)), in double precision.
TEST(Records, StagesStartWhereTheReferenceChangesItsWindows) {
    for (const auto& file : {record_42, record_43, quickstart, golden_tiny}) {
        const ScheduleConfig s = load(file).schedule;
        for (int64_t step = 0; step < s.total_steps(); ++step) {
            const double x = static_cast<double>(step) / static_cast<double>(s.scheduled_steps);
            const size_t index = step >= s.scheduled_steps ? 3 : static_cast<size_t>(3 * x);
            size_t stage = 0;
            while (stage + 1 < s.stages.size() && s.stages[stage + 1].start <= step) ++stage;
            ASSERT_EQ(stage, index) << file << " at step " << step;
        }
    }
}

TEST(Records, DiffOf42And43IsWhatChanged) {
    const Config a = load(record_42), b = load(record_43);
    EXPECT_EQ(config_diff(a, b),
              "optimizer.matrix.decay: \"decoupled\" -> \"cautious\"\n"
              "optimizer.matrix.weight_decay: 0.0 -> 1.2\n"
              "record: 42 -> 43\n"
              "schedule.scheduled_steps: 2245 -> 2205\n"
              "schedule.stages[1].start: 749 -> 735\n"
              "schedule.stages[2].start: 1497 -> 1470\n"
              "schedule.stages[3].start: 2245 -> 2205\n");
    EXPECT_EQ(config_diff(a, a), "");
    EXPECT_EQ(config_diff(a, load(record_42, {"model.layers[5].cache=null", "model.layers[6].entry=null"})),
              "model.layers[5].cache: \"h5\" -> (absent)\n"
              "model.layers[6].entry[0][0]: 1.0 -> (absent)\n"
              "model.layers[6].entry[0][1]: \"x\" -> (absent)\n"
              "model.layers[6].entry[1][0]: \"sigmoid(scalars.skip[0])\" -> (absent)\n"
              "model.layers[6].entry[1][1]: \"h5\" -> (absent)\n");
}

TEST(Records, ResolvedTextLoadsToTheSameConfig) {
    const ConfigFiles files;
    for (const auto& file : {record_42, record_43, quickstart, golden_tiny}) {
        const Config first = load(file);
        const Config second = load(files.write("resolved.json", first.resolved_json));
        EXPECT_EQ(second.resolved_json, first.resolved_json) << file;
        EXPECT_EQ(second.hash, first.hash);
        EXPECT_EQ(first.hash, sha256_hex(first.resolved_json));
        EXPECT_EQ(config_diff(first, second), "");
        // What the text leaves out (absent names and mixes) must come back too.
        ASSERT_EQ(second.model.layers.size(), first.model.layers.size());
        for (size_t i = 0; i < first.model.layers.size(); ++i) {
            const LayerConfig &a = first.model.layers[i], &b = second.model.layers[i];
            EXPECT_TRUE(a.index == b.index && a.skip_layer == b.skip_layer && a.cache == b.cache);
            EXPECT_TRUE(a.entry == b.entry && a.before_attn == b.before_attn &&
                        a.after_attn == b.after_attn && a.after_mlp == b.after_mlp);
            EXPECT_TRUE(a.attn.has_value() == b.attn.has_value() && a.mlp.has_value() == b.mlp.has_value());
        }
        EXPECT_EQ(second.model.param("scalars").init, first.model.param("scalars").init);
    }
}

TEST(Records, HashDependsOnTheContentAlone) {
    const ConfigFiles files;
    const auto copy = files.child(R"("record": 43)");
    EXPECT_EQ(load(copy).hash, load(record_43).hash);
    EXPECT_EQ(load(record_43, {"optimizer.matrix.lr=3e-2"}).hash, load(record_43).hash);
    std::set<std::string> hashes{load(record_42).hash, load(record_43).hash, load(quickstart).hash,
                                 load(record_43, {"optimizer.matrix.lr=0.0300001"}).hash};
    EXPECT_EQ(hashes.size(), 4u);
}

TEST(Records, QuickstartIsTheSameArchitectureInSmall) {
    const Config c = load(quickstart), full = load(record_43);
    EXPECT_EQ(c.record, 0);
    EXPECT_EQ(c.model.d_model, 256);
    EXPECT_EQ(c.model.param("attn_qkvo").shape, (Shape{10, 4, 256, 256}));
    EXPECT_EQ(c.model.param("attn_qkvo").state_dict_shape, (Shape{256, 1024}));
    EXPECT_EQ(c.model.param("attn_gate").shape, (Shape{10, 4, 12}));
    EXPECT_EQ(c.optimizer.params[5].matrix_view, (std::array<int64_t, 3>{11, 256, 1024}));
    EXPECT_EQ(c.model.param("mlp_fc").init[0].value, 0.03125);  // 0.5 / sqrt(256)
    EXPECT_EQ(c.numerics.lm_head.format, NumericsConfig::Head::Format::activations);
    EXPECT_EQ(c.model.rope.rotary_dims, c.model.head_dim / 2);
    for (size_t i = 0; i < c.model.layers.size(); ++i) {
        EXPECT_EQ(c.model.layers[i].entry, full.model.layers[i].entry);
        EXPECT_EQ(c.model.layers[i].before_attn, full.model.layers[i].before_attn);
    }
}

TEST(Records, GoldenRunIsInFp32Throughout) {
    const Config c = load(golden_tiny);
    EXPECT_EQ(c.model.vocab_size, 512);
    EXPECT_EQ(c.data.vocab_size, 500);
    EXPECT_EQ(c.data.bos_id, 499);
    EXPECT_EQ(c.data.max_num_docs.entries(256), 128);
    EXPECT_EQ(c.data.max_num_docs.entries(512), 128);
    EXPECT_EQ(c.model.param("scalars").shape, Shape{62});
    EXPECT_EQ(c.model.param("scalars").slices.size(), 5u);
    EXPECT_EQ(c.numerics.activations, Dtype::fp32);
    EXPECT_EQ(c.numerics.params, NumericsConfig::Params::fp32);
    EXPECT_EQ(c.optimizer.adam.state_dtype, AdamConfig::StateDtype::fp32);
    EXPECT_EQ(c.optimizer.matrix.orthogonalize.dtype, Dtype::fp32);
    EXPECT_EQ(c.model.rope.table_dtype, Dtype::fp32);
    EXPECT_EQ(c.schedule.total_steps(), 12);
}

TEST(MaxNumDocs, RoundsUpAndHoldsOneMultipleAtLeast) {
    const DataConfig::MaxNumDocs rule{.divisor = 300, .multiple = 128, .sizes = {}};
    EXPECT_EQ(rule.entries(1), 128);
    EXPECT_EQ(rule.entries(300 * 128 + 299), 128);
    EXPECT_EQ(rule.entries(300 * 129), 256);
}

}  // namespace
}  // namespace speedrun

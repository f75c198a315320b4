// An MLP whose products are of 8-bit floats (records 84 and 89) against the same in plain ATen, and what of
// it lasts from step to step.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>

#include "model/pass.h"
#include "ops/dtype.h"
#include "support/small_record.h"

namespace speedrun {
namespace {

constexpr int64_t kTokens = 48;

const std::vector<std::string> kFp8{"numerics.mlp.up.format=fp8",
                                    "numerics.mlp.down.format=fp8",
                                    "numerics.mlp.down.act_headroom=1.5",
                                    "numerics.mlp.down.weight_headroom=1.25",
                                    "numerics.mlp.down.exact_weight_steps=2",
                                    "numerics.mlp.save_for_backward=post",
                                    "runtime.device=cpu"};

// The first MLP of record 43 with other sizes, alone: its input and the gradient of its output come from the
// test.
class LoneMlp {
  public:
    explicit LoneMlp(const std::vector<std::string>& overrides)
        : config_(small_record({}, overrides)),
          graph_(compile(config_)),
          table_(config_, graph_, at::kCPU),
          scalars_(graph_.scalars(), table_, config_.numerics.activations, at::kCPU),
          rotary_(config_.model, config_.schedule.block_size, kTokens, at::kCPU),
          workspace_(graph_.values(), scalar_type(config_.numerics.activations), at::kCPU),
          attention_(ops::Attention::make(ops::Attention::Backend::standard, at::kCPU)),
          node_(**std::ranges::find_if(
              graph_.nodes(), [](const auto& node) { return node->kind() == std::string_view("mlp"); })) {
        for (Parameter& parameter : table_.all()) parameter.value.normal_(0, 0.1);
        table_.refresh();
    }

    ParameterTable& table() { return table_; }
    const Fp8Weights& fp8() const { return table_.fp8(); }
    // fc [hidden, d] and proj [d, hidden], as record 43's multiplied.
    at::Tensor fc() const { return out_in(0, 128, 32); }
    at::Tensor proj() const { return out_in(1, 32, 128); }
    at::Tensor fc_gradient() const { return table_.grad(weight(0)); }
    at::Tensor proj_gradient() const { return table_.grad(weight(1)); }

    struct Found {
        at::Tensor out, dx;
    };
    // dout undefined: as in validation.
    Found pass(const at::Tensor& x, const at::Tensor& dout = {}) {
        Pass pass{.workspace = workspace_,
                  .parameters = table_,
                  .scalars = scalars_,
                  .rotary = rotary_,
                  .attention = *attention_,
                  .inputs = {},
                  .bigram_rows = {},
                  .targets = ops::Targets(at::Tensor()),
                  .masks = {},
                  .paired_masks = {},
                  .loss_per_token = {},
                  .logits = {},
                  .loss_sum = {}};
        workspace_.begin(x.size(0), /*training=*/dout.defined());
        const ValueId in = node_.inputs().front(), out = node_.outputs().back();
        at::Tensor(workspace_.allocate(in)).copy_(x);
        node_.forward(pass);
        Found found{workspace_.value(out).clone(), {}};
        if (!dout.defined()) return found;
        table_.zero_grad();
        workspace_.grad_target(out).tensor.copy_(dout);
        node_.backward(pass);
        found.dx = workspace_.grad(in).clone();
        return found;
    }

  private:
    const WeightRef& weight(size_t i) const { return node_.weights()[i].weight; }
    at::Tensor out_in(size_t i, int64_t out, int64_t in) const {
        const at::Tensor stored = table_.used(weight(i));
        return stored.size(0) == out && stored.size(1) == in ? stored : stored.t();
    }

    Config config_;
    Graph graph_;
    ParameterTable table_;
    ScalarTable scalars_;
    Rotary rotary_;
    Workspace workspace_;
    std::unique_ptr<ops::Attention> attention_;
    const Node& node_;
};

// ---- the same with ATen's own 8-bit floats; sums in fp64

at::Tensor bf16(const at::Tensor& x) {
    return x.to(at::kFloat).to(at::kBFloat16);
}
at::Tensor wide(const at::Tensor& x) {
    return x.to(at::kFloat).to(at::kDouble);
}
at::Tensor e4m3(const at::Tensor& fp32) {
    return wide(fp32.to(at::kFloat).clamp(-448, 448).to(at::kFloat8_e4m3fn));
}
at::Tensor largest(const at::Tensor& x) {
    return x.abs().max().to(at::kFloat).clamp_min(1e-12);
}
at::Tensor exact_scale(const at::Tensor& weight) {
    return (weight.abs().max().clamp_min(1e-12) / 448).to(at::kFloat);
}

struct PlainMlp {
    at::Tensor activation_scale = at::ones({}), weight_scale;

    struct Found {
        at::Tensor out, dx, dfc, dproj;
    };
    Found pass(const LoneMlp& mlp, const at::Tensor& x, const at::Tensor& dout) {
        const at::Tensor fc = mlp.fc(), proj = mlp.proj(), fc_scale = exact_scale(fc), x_amax = largest(x);
        const at::Tensor fc8 = e4m3(fc / fc_scale.to(at::kBFloat16)),
                         x8 = e4m3(x.to(at::kFloat) * (448 * x_amax.reciprocal()));
        const at::Tensor pre = bf16(x8.mm(fc8.t()) * wide(fc_scale * x_amax / 448));
        const at::Tensor post = bf16(wide(pre.relu()).square());
        const at::Tensor post8 = e4m3(post.to(at::kFloat) * activation_scale.reciprocal()),
                         proj8 = e4m3(proj.to(at::kFloat) / weight_scale);
        const at::Tensor out = bf16(post8.mm(proj8.t()) * wide(activation_scale * weight_scale));
        activation_scale = largest(post) * (1.5 / 448);
        const at::Tensor dpost = bf16(wide(dout).mm(wide(proj)));
        const at::Tensor dpre = bf16(2 * wide(dpost) * wide(post).sqrt());
        return {out, bf16(wide(dpre).mm(wide(fc))), wide(dpre).t().mm(wide(x)),
                wide(dout).t().mm(wide(post))};
    }
};

double distance(const at::Tensor& found, const at::Tensor& expected) {
    const at::Tensor one = wide(found), other = wide(expected);
    if (one.sizes() != other.sizes()) return distance(found.t(), expected);
    return ((one - other).norm() / other.norm()).item<double>();
}

struct Fp8Mlp : ::testing::Test {
    Fp8Mlp() { at::manual_seed(4); }
    static at::Tensor normal() { return at::randn({kTokens, 32}).to(at::kBFloat16); }
};

// Two that round alike: a sum in fp32 near the middle between two numbers of bf16 goes the other way now and
// then, which is 2^-8 of one number in some thousands, or 2^-4 of one where it then falls to another number
// of e4m3. Gradients of the weights are added to bf16, 2^-9 of each.
TEST_F(Fp8Mlp, IsThePlainOne) {
    LoneMlp mlp(kFp8);
    PlainMlp plain{.weight_scale = exact_scale(mlp.proj())};
    for (int pass = 0; pass < 3; ++pass) {
        SCOPED_TRACE(pass);
        const at::Tensor x = normal() * (1 + pass), dout = normal();
        EXPECT_EQ(mlp.fp8().activation_scales()[1].item<float>(), plain.activation_scale.item<float>());
        const auto found = mlp.pass(x, dout);
        const auto expected = plain.pass(mlp, x, dout);
        EXPECT_LT(distance(found.out, expected.out), 1e-3);
        EXPECT_LT(distance(found.dx, expected.dx), 1e-3);
        EXPECT_LT(distance(mlp.fc_gradient(), expected.dfc), 3e-3);
        EXPECT_LT(distance(mlp.proj_gradient(), expected.dproj), 3e-3);
        // Another arithmetic is told from it.
        EXPECT_GT(distance(mlp.pass(x).out, expected.out), 1e-2);
    }
}

TEST_F(Fp8Mlp, ValidationHasNoneOfIt) {
    LoneMlp mlp(kFp8), other({"runtime.device=cpu"});
    for (size_t i = 0; i < mlp.table().all().size(); ++i)
        other.table().all()[i].value.copy_(mlp.table().all()[i].value);
    other.table().refresh();
    const at::Tensor x = normal(), before = mlp.fp8().activation_scales().clone();
    EXPECT_TRUE(at::equal(mlp.pass(x).out, other.pass(x).out));
    EXPECT_TRUE(at::equal(mlp.fp8().activation_scales(), before));
    EXPECT_TRUE(other.fp8().empty());
}

// After the steps 0 and 1 the scale is exact, afterwards that of the quantisation before, with headroom.
TEST_F(Fp8Mlp, WeightScalesFollowTheSteps) {
    LoneMlp mlp(kFp8);
    const auto scale = [&](int64_t i) { return mlp.fp8().weight_scales()[i].item<float>(); };
    EXPECT_EQ(scale(1), exact_scale(mlp.proj()).item<float>());
    float last_amax = largest(mlp.proj()).item<float>();
    for (int64_t step = 0; step < 5; ++step) {
        SCOPED_TRACE(step);
        for (Parameter& parameter : mlp.table().all()) parameter.value.mul_(1.5);
        for (Parameter& parameter : mlp.table().all())
            if (!parameter.used.is_same(parameter.value)) parameter.used.copy_(parameter.value);
        mlp.table().refresh_fp8(step);
        const float delayed = last_amax * static_cast<float>(1.25 / 448);
        EXPECT_EQ(scale(0), exact_scale(mlp.fc()).item<float>());
        EXPECT_EQ(scale(1), step < 2 ? exact_scale(mlp.proj()).item<float>() : delayed);
        // 1.5 is more than the headroom: what is beyond it becomes 448.
        if (step >= 2) {
            EXPECT_EQ(mlp.fp8().matrix(1).codes.abs().max().item<float>(), 448);
        }
        last_amax = largest(mlp.proj()).item<float>();
    }
}

// What a checkpoint keeps, put into another model with the same weights: the same bits from there on.
TEST_F(Fp8Mlp, ScalesAndWeightsAreAllOfItsState) {
    LoneMlp mlp(kFp8), again(kFp8);
    mlp.pass(normal(), normal());
    for (int64_t step = 0; step < 4; ++step) mlp.table().refresh_fp8(step);
    for (size_t i = 0; i < mlp.table().all().size(); ++i)
        again.table().all()[i].value.copy_(mlp.table().all()[i].value);
    again.table().refresh();
    again.fp8().weight_scales().copy_(mlp.fp8().weight_scales());
    again.fp8().activation_scales().copy_(mlp.fp8().activation_scales());
    again.table().restore_fp8();
    for (int64_t step = 4; step < 6; ++step) {
        const at::Tensor x = normal(), dout = normal();
        EXPECT_TRUE(at::equal(mlp.pass(x, dout).out, again.pass(x, dout).out));
        EXPECT_TRUE(at::equal(mlp.fp8().weight_scales(), again.fp8().weight_scales()));
        EXPECT_TRUE(at::equal(mlp.fp8().activation_scales(), again.fp8().activation_scales()));
        mlp.table().refresh_fp8(step);
        again.table().refresh_fp8(step);
    }
    // New weights begin a new run.
    again.table().refresh();
    EXPECT_EQ(again.fp8().activation_scales().max().item<float>(), 1);
}

// From post alone backward has the root of its square, rounded to bf16 in between; in fp32 the same bits.
TEST_F(Fp8Mlp, BackwardFromPostAlone) {
    for (const char* activations : {"fp32", "bf16"}) {
        const std::string dtype = "numerics.activations=" + std::string(activations);
        LoneMlp both({dtype, "runtime.device=cpu"}),
            post({dtype, "numerics.mlp.save_for_backward=post", "runtime.device=cpu"});
        for (size_t i = 0; i < both.table().all().size(); ++i)
            post.table().all()[i].value.copy_(both.table().all()[i].value);
        post.table().refresh();
        const at::Tensor x = normal(), dout = normal();
        const auto one = both.pass(x, dout), other = post.pass(x, dout);
        EXPECT_TRUE(at::equal(one.out, other.out));
        const bool fp32 = dtype.ends_with("fp32");
        EXPECT_LE(distance(other.dx, one.dx), fp32 ? 0 : 0x1p-8);
        EXPECT_LE(distance(post.fc_gradient(), both.fc_gradient()), fp32 ? 0 : 0x1p-8);
    }
}

}  // namespace
}  // namespace speedrun

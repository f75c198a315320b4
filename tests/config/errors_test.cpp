// Every kind of mistake in a config, and what the message says about it.
#include <gtest/gtest.h>

#include "config/config_testing.h"

namespace speedrun {
namespace {

struct Mistake {
    std::string members;             // of a config that extends record 43
    std::vector<std::string> parts;  // of the message
};

void expect_mistakes(const std::vector<Mistake>& mistakes) {
    const ConfigFiles files;
    for (const Mistake& mistake : mistakes) {
        SCOPED_TRACE(mistake.members);
        const auto child = files.child(mistake.members);
        try {
            load(child);
            ADD_FAILURE() << "accepted";
        } catch (const UserError& error) {
            const std::string text = error.what();
            for (const char c : text) EXPECT_TRUE(c >= 0x20 && c < 0x7f) << text;
            EXPECT_NE(text.find(".json: "), std::string::npos) << "no file in: " << text;
            for (const std::string& part : mistake.parts)
                EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
        }
    }
}

TEST(Errors, UnknownKeysNameTheNearest) {
    expect_mistakes({
        {R"("datta": {})",
         {"child.json: datta: unknown key", "found \"datta\"", "record, data, model",
          "nearest valid name: \"data\""}},
        {R"("model": {"n_heads": 6})", {"model.n_heads: unknown key", "nearest valid name: \"n_head\""}},
        {R"("model": {"rope": {"yarn": {"betta": 1}}})", {"model.rope.yarn.betta: unknown key", "\"beta\""}},
        {R"("model": {"params": {"embed": {"sape": [1]}}})",
         {"model.params.embed.sape: unknown key", "\"shape\""}},
        {R"("model": {"params": {"scalars": {"slices": {"sa": {"initt": 1}}}}})",
         {"model.params.scalars.slices.sa.initt", "\"init\""}},
        {R"("model": {"layer_defaults": {"attn": {"out_gat": "x"}}})",
         {"model.layer_defaults.attn.out_gat: unknown key", "\"out_gate\""}},
        {R"("model": {"output": {"softcap": {"d": 1}}})",
         {"model.output.softcap.d: unknown key", "allowed: form, a, b, c"}},
        {R"("objective": {"grad_devisor": 8})", {"objective.grad_devisor", "\"grad_divisor\""}},
        {R"("numerics": {"lm_head": {"xscale": 8}})", {"numerics.lm_head.xscale", "\"x_scale\""}},
        {R"("optimizer": {"adam": {"beta": 1}})", {"optimizer.adam.beta: unknown key", "\"betas\""}},
        {R"("optimizer": {"matrix": {"momentum": {"warmup": 1}}})",
         {"optimizer.matrix.momentum.warmup", "\"warmup_steps\""}},
        {R"("optimizer": {"params": {"embed": {"lrmul": 1}}})",
         {"optimizer.params.embed.lrmul", "\"lr_mul\""}},
        {R"("schedule": {"stages": [{"start": 0, "batch_tokens": 32768, "max_seq_len": 1, "windows": {}}]})",
         {"schedule.stages[0].windows", "\"window\""}},
        {R"("schedule": {"eval": {"evry": 1}})", {"schedule.eval.evry", "\"every\""}},
        {R"("runtime": {"sed": null})", {"runtime.sed: unknown key", "\"seed\""}},
        {R"("data": {"comm": {}})", {"data.comm: unknown key"}},
        {"\"x\\u001b\": 1", {"unknown key", "\\x1b"}},
    });
}

TEST(Errors, HostileKeysAreShownInBrief) {
    const ConfigFiles files;
    const auto child = files.child("\"" + std::string(1000000, 'k') + "\": 1");
    try {
        load(child);
        FAIL();
    } catch (const UserError& error) {
        EXPECT_LT(std::string(error.what()).size(), 1000u);
    }
}

TEST(Errors, WrongTypes) {
    expect_mistakes({
        {R"("record": "43")", {"child.json: record: wrong type; found \"43\"; allowed: an integer"}},
        {R"("record": 4.5)", {"record: wrong type; found 4.5"}},
        {R"("record": true)", {"record: wrong type; found true"}},
        {R"("data": [])", {"data: wrong type or size; found []; allowed: an object"}},
        {R"("data": {"train": 3})", {"data.train: wrong type; found 3; allowed: a string"}},
        {R"("data": {"train": ""})", {"data.train", "not empty"}},
        {R"("data": {"max_num_docs": 300})", {"data.max_num_docs", "allowed: an object"}},
        {R"("model": {"norm_eps": "small"})",
         {"model.norm_eps: wrong type; found \"small\"; allowed: a number > 0"}},
        {R"("model": {"params": []})", {"model.params: wrong type"}},
        {R"("model": {"params": {"embed": 3}})", {"model.params.embed: wrong type or size; found 3"}},
        {R"("model": {"params": {"embed": {"shape": 3}}})",
         {"model.params.embed.shape", "an array of 1 to 5 sizes"}},
        {R"("model": {"params": {"embed": {"shape": []}}})",
         {"model.params.embed.shape", "an array of 1 to 5 sizes"}},
        {R"("model": {"output": {"mix": [[1, 2]]}})",
         {"model.output.mix[0]", "a term [coefficient, \"source\"]"}},
        {R"("model": {"output": {"mix": [[1, "x", 3]]}})", {"model.output.mix[0]"}},
        {R"("model": {"output": {"mix": []}})", {"model.output.mix", "1 to 64"}},
        {R"("model": {"output": {"mix": [[[], "x"]]}})",
         {"model.output.mix[0][0]: no coefficient; found []"}},
        {R"("optimizer": {"adam": {"betas": [0.5]}})", {"optimizer.adam.betas", "an array of 2 numbers"}},
        {R"("optimizer": {"adam": {"betas": 0.5}})", {"optimizer.adam.betas", "an array of 2 numbers"}},
        {R"("optimizer": {"matrix": {"momentum": {"nesterov": 1}}})",
         {"optimizer.matrix.momentum.nesterov: wrong type; found 1; allowed: true, false"}},
        {R"("schedule": {"stages": {}})", {"schedule.stages: wrong type or size; found {}"}},
        {R"("schedule": {"stages": []})", {"schedule.stages"}},
        {R"("schedule": {"stages": [1]})", {"schedule.stages[0]: wrong type"}},
        {R"("runtime": {"seed": -1})",
         {"runtime.seed: wrong type; found -1; allowed: an integer, 0 .. 2^64 - 1"}},
        {R"("runtime": {"seed": 18446744073709551616})", {"runtime.seed: wrong type"}},
        {R"("model": null)", {"model: required key is null"}},
        {R"("data": {"train": null})", {"data.train: required key is null"}},
    });
}

TEST(Errors, MissingKeys) {
    const ConfigFiles files;
    expect_user_error([&] { load(files.write("empty.json", "{}")); },
                      {"empty.json: data: required key is missing"});
    expect_user_error([&] { load(files.write("data.json", R"({"data": {"train": "a"}})")); },
                      {"data.json: data.val: required key is missing", "glob of validation shards"});
    expect_mistakes({
        {R"("model": {"params": {"extra": {"shape": [1]}}})",
         {"child.json: model.params.extra.dtype: required key is missing"}},
        {R"("model": {"params": {"extra": {"shape": [1], "dtype": "fp32"}}})",
         {"model.params.extra.init: required key is missing"}},
        {R"("model": {"layer_defaults": {"mlp": {"fc": null}}})",
         {"model.layer_defaults.mlp.fc: required key is null"}},
        {R"("model": {"layer_defaults": {"attn": {"qkvo": null}}})", {"attn.q"}},
        {R"("optimizer": {"params": {"embed": {"optim": "matrix"}}})",
         {"optimizer.params.embed.matrix_view: required key is missing"}},
    });
}

TEST(Errors, Choices) {
    expect_mistakes({
        {R"("objective": {"accumulation": "sum_then_devide"})",
         {"objective.accumulation: not one of the choices; found \"sum_then_devide\"",
          "sum_then_divide, divide_then_sum, sum", "nearest valid name: \"sum_then_divide\""}},
        {R"("numerics": {"activations": "fp16"})", {"numerics.activations", "allowed: fp32, bf16"}},
        {R"("numerics": {"lm_head": {"format": 8}})",
         {"numerics.lm_head.format: not one of the choices; found 8", "activations, fp8"}},
        {R"("numerics": {"mlp": {"up": {"format": "e4m3"}}})",
         {"numerics.mlp.up.format: not one of the choices; found \"e4m3\"", "activations, fp8"}},
        {R"("numerics": {"mlp": {"save_for_backward": "pre"}})",
         {"numerics.mlp.save_for_backward: not one of the choices", "pre_and_post, post"}},
        {R"("numerics": {"mlp": {"format": "fp8"}})", {"numerics.mlp.format: unknown key"}},
        {R"("optimizer": {"matrix": {"decay": "cautous"}})",
         {"optimizer.matrix.decay", "none, decoupled, cautious", "\"cautious\""}},
        {R"("optimizer": {"params": {"embed": {"optim": "adamw"}}})",
         {"optimizer.params.embed.optim", "\"adam\""}},
        {R"("runtime": {"device": "gpu"})", {"runtime.device", "auto, cpu, cuda"}},
        {R"("runtime": {"attention": "fast"})", {"runtime.attention", "flash, flash_atomic, cudnn"}},
        {R"("model": {"params": {"embed": {"init": "zeroes"}}})",
         {"model.params.embed.init: no initialiser; found \"zeroes\"", "\"zeros\""}},
        {R"("model": {"params": {"embed": {"init": {"norml": 1}}}})", {"model.params.embed.init", "norml"}},
        {R"("model": {"params": {"attn_gate": {"init": {"normal": 1, "uniform": 1}}}})",
         {"model.params.attn_gate.init: wrong type or size", "uniform_per_sqrt_dim"}},
    });
}

TEST(Errors, ImpossibleValues) {
    expect_mistakes({
        {R"("data": {"val_tokens": -5})",
         {"data.val_tokens: out of range; found -5; allowed: an integer, 1 .."}},
        {R"("data": {"val_tokens": 10485761})",
         {"data.val_tokens: is no multiple of data.val_micro_batch_tokens; found 10485761", "262144"}},
        {R"("data": {"rows": 0})", {"data.rows: out of range; found 0"}},
        {R"("data": {"rows": 18446744073709551615})", {"data.rows: out of range"}},
        {R"("data": {"bos_id": 50257})", {"data.bos_id: is no token id; found 50257; allowed: 0 .. 50256"}},
        {R"("data": {"vocab_size": 65537})", {"data.vocab_size: out of range"}},
        {R"("data": {"vocab_size": 50305})", {"data.vocab_size", "fewer rows", "1 .. 50304"}},
        {R"("data": {"max_num_docs": {"divisor": 0}})", {"data.max_num_docs.divisor: out of range"}},
        {R"("model": {"n_head": 5})", {"is not n_head * head_dim; found 768; allowed: 5 * 128 = 640"}},
        {R"("model": {"vocab_size": 50305})", {"model.vocab_size", "a multiple of 16"}},
        {R"("model": {"d_model": 9223372036854775808})", {"model.d_model: out of range"}},
        {R"("model": {"n_layer": 1000000000})", {"model.n_layer: out of range"}},
        {R"("model": {"rope": {"rotary_dims": 130}})", {"model.rope.rotary_dims", "at most head_dim = 128"}},
        {R"("model": {"rope": {"rotary_dims": 63}})", {"model.rope.rotary_dims", "an even number"}},
        {R"("model": {"rope": {"yarn": {"beta": 1}}})", {"model.rope.yarn.beta: is not above alpha"}},
        {R"("model": {"norm_eps": 0})", {"model.norm_eps: out of range; found 0; allowed: a number > 0"}},
        {R"("model": {"output": {"softcap": {"c": 0}}})", {"model.output.softcap.c: out of range"}},
        {R"("objective": {"grad_divisor": 0})", {"objective.grad_divisor: out of range"}},
        {R"("numerics": {"lm_head": {"w_scale": -1}})", {"numerics.lm_head.w_scale: out of range"}},
        {R"("optimizer": {"adam": {"betas": [0.5, 1]}})",
         {"optimizer.adam.betas[1]: out of range; found 1; allowed: a number >= 0.0, < 1.0"}},
        {R"("optimizer": {"adam": {"betas": [-0.5, 0.5]}})", {"optimizer.adam.betas[0]: out of range"}},
        {R"("optimizer": {"adam": {"eps": 0}})", {"optimizer.adam.eps: out of range"}},
        {R"("optimizer": {"adam": {"every_n_steps": 0}})", {"optimizer.adam.every_n_steps: out of range"}},
        {R"("optimizer": {"matrix": {"momentum": {"max": 1}}})",
         {"optimizer.matrix.momentum.max: out of range; found 1"}},
        {R"("optimizer": {"matrix": {"momentum": {"min": -0.1}}})",
         {"optimizer.matrix.momentum.min: out of range"}},
        {R"("optimizer": {"matrix": {"beta2": 1}})", {"optimizer.matrix.beta2: out of range"}},
        {R"("optimizer": {"matrix": {"lr": -1}})", {"optimizer.matrix.lr: out of range"}},
        {R"("optimizer": {"matrix": {"decay": "none"}})",
         {"optimizer.matrix.weight_decay: has no effect with decay none; found 1.2"}},
        {R"("optimizer": {"matrix": {"orthogonalize": {"iters": 6}}})",
         {"orthogonalize.iters: polar_express has fewer", "1 .. 5"}},
        {R"("optimizer": {"params": {"attn_qkvo": {"var_reduce_dim": 0}}})",
         {"optimizer.params.attn_qkvo.var_reduce_dim: out of range; found 0; allowed: an integer, -2 .. -1"}},
        {R"("optimizer": {"params": {"attn_qkvo": {"matrix_view": [4, 768, 768]}}})",
         {"optimizer.params.attn_qkvo.matrix_view: does not hold the parameter", "[10,4,768,768]"}},
        {R"("optimizer": {"params": {"embed": {"matrix_view": [1, 1, 1]}}})",
         {"optimizer.params.embed.matrix_view: key without a meaning"}},
        {R"("schedule": {"scheduled_steps": 0})", {"schedule.scheduled_steps: out of range"}},
        {R"("schedule": {"lr": {"cooldown_frac": 1.5}})",
         {"schedule.lr.cooldown_frac: out of range; found 1.5; allowed: a number >= 0.0, <= 1.0"}},
        {R"("schedule": {"lr": {"cooldown_frac": -0.5}})", {"schedule.lr.cooldown_frac: out of range"}},
        {R"("schedule": {"block_size": -8})", {"schedule.block_size: out of range"}},
        {R"("runtime": {"threads": -1})", {"runtime.threads: out of range"}},
        {R"("runtime": {"device": "cpu", "attention": "cudnn"})",
         {"runtime.attention: cuDNN needs a GPU, and runtime.device is cpu; found cudnn; allowed: flash"}},
        {R"("numerics": {"activations": "fp32"}, "runtime": {"attention": "cudnn"})",
         {"runtime.attention: cuDNN needs numerics.activations bf16"}},
        {R"("model": {"d_model": 768, "n_head": 8, "head_dim": 96}, "runtime": {"attention": "cudnn"})",
         {"runtime.attention: cuDNN needs model.head_dim 64 or 128, it is 96"}},
        {R"("numerics": {"lm_head": {"format": "fp8"}}, "data": {"rows": 32768})",
         {"schedule.stages[0].batch_tokens: numerics.lm_head.format fp8 takes rows of 16 tokens at a time"}},
        {R"("numerics": {"lm_head": {"format": "activations"}, "mlp": {"down": {"format": "fp8"}}},
            "data": {"rows": 32768})",
         {"schedule.stages[0].batch_tokens: numerics.mlp.down.format fp8 takes rows of 16 tokens at a time"}},
        {R"("numerics": {"mlp": {"down": {"act_headroom": 0}}})",
         {"numerics.mlp.down.act_headroom: out of range; found 0; allowed: a number > 0.0"}},
        {R"("numerics": {"mlp": {"down": {"exact_weight_steps": -1}}})",
         {"numerics.mlp.down.exact_weight_steps: out of range"}},
    });
}

TEST(Errors, Stages) {
    const auto stage = [](const std::string& start, const std::string& tokens, const std::string& window) {
        return R"({"start": )" + start + R"(, "batch_tokens": )" + tokens +
               R"(, "max_seq_len": 64, "window": )" + window + "}";
    };
    const auto stages = [](const std::string& list) { return R"("schedule": {"stages": [)" + list + "]}"; };
    const std::string window = R"({"short": 1, "long": 3})";
    const std::string first = stage("0", "32768", window);
    expect_mistakes({
        {stages(stage("1", "32768", window)),
         {"schedule.stages[0].start: the first stage starts at step 0; found 1"}},
        {stages(first + "," + first),
         {"schedule.stages[1].start: stages must ascend; found 0; allowed: more than 0"}},
        {stages(first + "," + stage("9", "32768", window) + "," + stage("8", "32768", window)),
         {"schedule.stages[2].start: stages must ascend; found 8"}},
        {stages(stage("0", "32769", window)),
         {"schedule.stages[0].batch_tokens: is no multiple of data.rows; found 32769; allowed: a multiple "
          "of 8"}},
        {stages(stage("0", "32768", R"({"short": -1, "long": 3})")),
         {"schedule.stages[0].window.short: out of range; found -1"}},
        {stages(stage("0", "32768", R"({"short": 1, "long": -3})")),
         {"schedule.stages[0].window.long: out of range; found -3"}},
        {stages(stage("0", "32768", R"({"short": 1})")),
         {"schedule.stages[0].window.long: required key is missing"}},
    });
}

TEST(Errors, Parameters) {
    const auto slices = [](const std::string& members) {
        return R"("model": {"params": {"scalars": {"slices": {)" + members + "}}}}";
    };
    const auto param = [](const std::string& name, const std::string& members) {
        return R"("model": {"params": {")" + name + R"(": {)" + members + "}}}";
    };
    expect_mistakes({
        {param("embed", R"("shape": ["vocab_size", "dmodel"])"),
         {"model.params.embed.shape[1]: no dimension of that name; found \"dmodel\"", "\"d_model\""}},
        {param("embed", R"("shape": ["vocab_size", "x*d_model"])"), {"model.params.embed.shape[1]: no size"}},
        {param("embed", R"("shape": ["vocab_size", "0*d_model"])"), {"model.params.embed.shape[1]: no size"}},
        {param("embed", R"("shape": ["vocab_size", "-1*d_model"])"), {"model.params.embed.shape[1]"}},
        {param("embed", R"("shape": ["vocab_size", -768])"),
         {"model.params.embed.shape[1]: no size; found -768"}},
        {param("embed", R"("shape": ["9999999999999*vocab_size", 1])"),
         {"model.params.embed.shape[0]: too large"}},
        {param("embed", R"("shape": [1099511627776, 2])"), {"model.params.embed.shape: too large"}},
        {param("embed", R"("shape": ["vocab_size", 512])"),
         {"parameter embed has another shape than its use here", "[50304,512]", "[50304,768]"}},
        {param("lm_head", R"("shape": ["d_model", "vocab_size"])"),
         {"model.output.head: parameter lm_head has another shape"}},
        {param("attn_qkvo", R"("shape": [9, 4, 768, 768])"),
         {"model.params.attn_qkvo.shape: dimension 0 is too small or too large for its layers",
          "10 entries"}},
        {param("attn_qkvo", R"("layers": [1, 2, 3, 4, 5, 6, 8, 10, 9, 11])"),
         {"model.params.attn_qkvo.layers[8]: not a layer above the one before; found 9"}},
        {param("attn_qkvo", R"("layers": [1, 2, 3, 4, 5, 6, 8, 9, 10, 12])"),
         {"model.params.attn_qkvo.layers[9]", "0 .. 11"}},
        {param("attn_qkvo", R"("init": ["zeros", "zeros"])"), {"model.params.attn_qkvo.init", "one, or 4"}},
        {param("embed", R"("init": {"normal": 0})"), {"model.params.embed.init.normal: out of range"}},
        {param("attn_qkvo", R"("state_dict": "blocks.{k}.attn")"),
         {"model.params.attn_qkvo.state_dict: does not name each entry", "one {i}"}},
        {param("value_embeds", R"("state_dict": "value.{i}")"),
         {"model.params.value_embeds.state_dict", "{k}"}},
        {param("embed", R"("state_dict": "lm_head.weight")"), {"the name \"lm_head.weight\" is taken"}},
        {param("attn_qkvo", R"("state_dict_shape": [768, 768])"),
         {"model.params.attn_qkvo.state_dict_shape: does not hold one entry", "[4, 768, 768]"}},
        {param("spare", R"("shape": [4], "dtype": "fp32", "init": "zeros")"),
         {"optimizer.params: no row for parameter \"spare\""}},
        {param("spare", R"("shape": [4], "dtype": "fp32", "init": "zeros")") +
             R"(, "optimizer": {"comm": null, "params": {"spare": {"optim": "adam"}}})",
         {"child.json: model.params.spare: nothing in the model uses this parameter"}},
        {param("2nd", R"("shape": [4], "dtype": "fp32", "init": "zeros")"),
         {"model.params: not a name; found \"2nd\""}},
        {param("embed", R"("slices": {"a": {"at": 0, "shape": [], "init": 0}}, "init": null)"),
         {"model.params.embed.slices: only parameters of one dimension"}},
        {param("scalars", R"("init": "zeros")"), {"model.params.scalars.init: key without a meaning"}},
        {slices(R"("pad": {"at": 61})"),
         {"model.params.scalars.slices.pad.at: slices must follow each other; found 61; allowed: 62"}},
        {slices(R"("pad": {"shape": [3]})"), {"model.params.scalars.slices.pad: ends behind the parameter"}},
        {slices(R"("pad": {"shape": [1]})"),
         {"model.params.scalars.slices: leave elements out; found 63 elements; allowed: 64"}},
        {slices(R"("pad": {"init": [1, 2, 3]})"),
         {"model.params.scalars.slices.pad.init: does not repeat evenly", "a divisor of 2"}},
        {slices(R"("pad": {"init": []})"), {"model.params.scalars.slices.pad.init", "1 to 4096 numbers"}},
        {slices(R"("pad": {"shape": [1099511627776, 1099511627776]})"),
         {"model.params.scalars.slices.pad: ends behind"}},
    });
}

TEST(Errors, CoefficientsAndSources) {
    const auto entry = [](const std::string& terms) {
        return R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 6, "entry": [)" + terms +
               R"(]}, {"i": 7, "attn": null}]})";
    };
    const auto coefficient = [&](const std::string& text) { return entry("[\"" + text + "\", \"x\"]"); };
    expect_mistakes({
        {coefficient("scalar.skip[0]"),
         {"child.json: model.layers[1].entry[0][0]: no parameter is called \"scalar\"",
          "nearest valid name: \"scalars\""}},
        {coefficient("scalars.skp[0]"),
         {"no slice of scalars is called \"skp\"", "skip, block, sa, smear, backout, pad", "\"skip\""}},
        {coefficient("embed.skip[0]"), {"no slice of embed is called \"skip\"", "none is declared"}},
        {coefficient("scalars.skip[12]"), {"index \"12\" is out of range", "0 .. 11, or i"}},
        {coefficient("scalars.skip[-1]"), {"index \"-1\" is out of range"}},
        {coefficient("scalars.skip[j]"), {"index \"j\" is out of range"}},
        {coefficient("scalars.skip[99999999999999999999]"), {"is out of range"}},
        {coefficient("scalars.skip"), {"wrong number of indices", "1 for scalars.skip"}},
        {coefficient("scalars.block[0]"), {"wrong number of indices", "2 for scalars.block"}},
        {coefficient("scalars.block[0,2]"), {"index \"2\" is out of range", "0 .. 1"}},
        {coefficient("scalars.skip[0"), {"a bracket is open", "sigmoid"}},
        {coefficient("scalars"), {"scalars has slices, and none is named", "skip, block"}},
        {coefficient("smear_gate@y[:12]"), {"no source of that name", "x"}},
        {coefficient(""), {"no coefficient"}},
        {coefficient("relu(scalars.skip[0])"), {"no parameter is called \"relu\""}},
        {coefficient("--scalars.skip[0]"), {"no name where one is expected"}},
        {coefficient("sigmoid(scalars.skip[0]"), {"no coefficient"}},
        {R"("model": {"output": {"mix": [["scalars.skip[i]", "x"]]}})",
         {"model.output.mix[0][0]: there is no layer index i here"}},
        {entry(R"([1, "h8"])"),
         {"model.layers[1].entry[0][1]: no source of that name at this point; found \"h8\"",
          "allowed: x, x0"}},
        {entry(R"([1, "x"], [1, "x"])"), {"model.layers[1].entry[1][1]: source listed twice"}},
        {entry(R"([1, "attn_out"])"), {"no source of that name at this point; found \"attn_out\""}},
        {R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 1, "attn": null, "after_attn": [[1, "attn_out"]]}, {"i": 7, "attn": null}]})",
         {"model.layers[1].after_attn[0][1]: no source"}},
        {R"("model": {"layers": [{"i": 0, "after_mlp": [[1, "x"]]}]})",
         {"parameter attn_qkvo has no entry for layer 0", "layers [1,2,3"}},
        {R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 1, "after_mlp": [[1, "x"]]}, {"i": 7, "attn": null}]})",
         {"model.layers[1].after_mlp: the branch's output is computed but never used"}},
        {R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 1, "attn": {"v_terms": [[1, "ve.3"]]}}, {"i": 7, "attn": null}]})",
         {"model.layers[1].attn.v_terms[0][1]: no source", "v, ve.0, ve.1, ve.2"}},
        {R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 1, "cache": "x0"}, {"i": 7, "attn": null}]})",
         {"model.layers[1].cache: not a name for a new source"}},
        {R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 1, "cache": "h"}, {"i": 2, "cache": "h"}, {"i": 7, "attn": null}]})",
         {"model.layers[2].cache: not a name for a new source"}},
        {R"("model": {"layers": [{"i": 0, "skip_layer": true}, {"i": 3, "attn": null}, {"i": 7, "attn": null}], "output": {"mix": null}})",
         {"model.params.attn_qkvo.layers[2]: the layer does not use this parameter; found 3"}},
    });
}

TEST(Errors, NamesThatResolveToNothing) {
    expect_mistakes({
        {R"("model": {"input": {"token": "embd"}})",
         {"child.json: model.input.token: no parameter of that name; found \"embd\"",
          "nearest valid name: \"embed\""}},
        {R"("model": {"input": {"token": "mlp_fc"}})",
         {"model.input.token: a per-layer parameter cannot serve here"}},
        {R"("model": {"input": {"value_embeds": "embed"}})",
         {"model.input.value_embeds: parameter embed has another shape"}},
        {R"("model": {"input": {"smear": {"gate": "smear_gate"}}})", {"model.input.smear: no coefficient"}},
        {R"("model": {"input": {"smear": "smear@e[:12]"}})",
         {"model.input.smear: no parameter is called \"smear\"", "\"smear_gate\""}},
        {R"("model": {"input": {"smear": "smear_gate@e[:769]"}})",
         {"model.input.smear: index \"769\" is out of range", "0 .. 768"}},
        {R"("model": {"input": {"smear": "smear_gate@e[:13]"}})",
         {"model.input.smear: parameter smear_gate has another shape", "[1,13]"}},
        {R"("model": {"input": {"smear": null}})", {"model.params.smear_gate: nothing in the model uses"}},
        {R"("model": {"output": {"head": "head"}})",
         {"model.output.head: no parameter of that name", "\"lm_head\""}},
        {R"("model": {"layer_defaults": {"attn": {"qkvo": "attn_qkv"}}})",
         {"child.json: model.layer_defaults.attn.qkvo: no parameter is called \"attn_qkv\"",
          "\"attn_qkvo\""}},
        {R"("model": {"layer_defaults": {"attn": {"qkvo": "embed"}}})",
         {"parameter embed has another shape", "[768,768]"}},
        {R"x("model": {"layer_defaults": {"attn": {"out_gate": "sigmoid(atn_gate@a[:12])"}}})x",
         {"model.layer_defaults.attn.out_gate", "\"attn_gate\""}},
        {R"("model": {"layer_defaults": {"mlp": {"fc": "embed"}}})",
         {"model.layer_defaults.mlp.fc: parameter embed has another shape"}},
        {R"("optimizer": {"params": {"embd": {"optim": "adam"}}})",
         {"child.json: optimizer.params.embd: the model has no such parameter", "\"embed\""}},
        {R"("optimizer": {"params": {"embed": null}})", {"optimizer.params: no row for parameter \"embed\""}},
        {R"("model": {"params": {"embed": null}}, "optimizer": {"comm": null, "params": {"embed": null}})",
         {"model.input.token: no parameter of that name"}},
    });
}

TEST(Errors, TwoRowsForOneParameterAreADuplicateKey) {
    const ConfigFiles files;
    const auto child =
        files.child(R"("optimizer": {"params": {"embed": {"optim": "adam"}, "embed": {"optim": "adam"}}})");
    expect_user_error([&] { load(child); }, {"child.json:1:", "key \"embed\" appears twice"});
}

// What a parent says can be taken back, also where it would contradict the child.
TEST(Errors, NullTakesInheritedKeysOut) {
    const ConfigFiles files;
    const Config config = load(files.child(
        R"("model": {"params": {"embed": {"init": {"normal": null, "uniform": 0.5}}}},
           "optimizer": {"comm": null, "params": {"mlp_fc": {"optim": "adam", "matrix_view": null, "var_reduce_dim": null}}})"));
    EXPECT_EQ(config.model.param("embed").init, (std::vector<Init>{{Init::Kind::uniform, 0.5}}));
    EXPECT_EQ(config.optimizer.params[5].rule, OptimParamConfig::Rule::adam);
    expect_mistakes({{R"("model": {"params": {"embed": {"init": {"uniform": 0.5}}}})",
                      {"model.params.embed.init: wrong type or size", "null takes an inherited one out"}}});
}

}  // namespace
}  // namespace speedrun

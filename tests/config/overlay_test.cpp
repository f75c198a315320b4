#include "config/overlay.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "config/config_testing.h"
#include "model/load_config.h"

namespace speedrun {
namespace {

Json chain(const std::filesystem::path& file) {
    Origins origins;
    return read_with_parents(file, origins);
}

TEST(Extends, ObjectsMergeArraysAndScalarsReplaceNullStays) {
    const ConfigFiles files;
    files.write("base.json", R"({"a": {"b": 1, "c": [1, 2, 3], "d": {"e": 1}}, "f": "x"})");
    const auto child = files.write(
        "child.json", R"({"extends": "base.json", "a": {"c": [4], "d": null, "g": {"h": 1}}, "i": 2})");
    EXPECT_EQ(chain(child).dump(), R"({"a":{"b":1,"c":[4],"d":null,"g":{"h":1}},"f":"x","i":2})");
    const auto grandchild =
        files.write("grandchild.json", R"({"extends": "child.json", "a": {"d": {"z": 0}, "b": {}}})");
    EXPECT_EQ(chain(grandchild).dump(), R"({"a":{"b":{},"c":[4],"d":{"z":0},"g":{"h":1}},"f":"x","i":2})");
}

TEST(Extends, IsRelativeToTheFileThatSaysIt) {
    const ConfigFiles files;
    std::filesystem::create_directories(files.path() / "sub/deeper");
    files.write("base.json", R"({"a": 1})");
    files.write("sub/middle.json", R"({"extends": "../base.json", "$schema": "x", "b": 2})");
    const auto child = files.write("sub/deeper/child.json", R"({"extends": "../middle.json", "c": 3})");
    EXPECT_EQ(chain(child).dump(), R"({"a":1,"b":2,"c":3})");
}

TEST(Extends, CyclesMissingParentsAndWrongTypes) {
    const ConfigFiles files;
    const auto self = files.write("self.json", R"({"extends": "self.json"})");
    expect_user_error([&] { chain(self); }, {"self.json: extends: a cycle", "self.json -> "});
    const auto a = files.write("a.json", R"({"extends": "./b.json"})");
    files.write("b.json", R"({"extends": "../)" + files.path().filename().string() + R"(/a.json"})");
    expect_user_error([&] { chain(a); }, {"b.json: extends: a cycle", "a.json -> ", "b.json -> "});
    const auto orphan = files.write("orphan.json", R"({"extends": "nowhere.json"})");
    expect_user_error([&] { chain(orphan); }, {"orphan.json: extends", "there is no file", "nowhere.json"});
    const auto control = files.write("control.json", "{\"extends\": \"a\\u001b[2J\x7f.json\"}");
    expect_user_error([&] { chain(control); }, {"there is no file", "a\\x1b[2J\\x7f.json"});
    const auto number = files.write("number.json", R"({"extends": 3})");
    expect_user_error([&] { chain(number); },
                      {"number.json: extends: wrong type", "found 3", "relative to this one"});
    const auto list = files.write("list.json", "[]");
    expect_user_error([&] { chain(list); }, {"list.json: top level: wrong type", "allowed: an object"});
    const auto broken = files.write("broken.json", R"({"extends": "list.json"})");
    expect_user_error([&] { chain(broken); }, {"list.json: top level"});
}

TEST(Extends, ErrorsNameTheFileThatHoldsTheValue) {
    const ConfigFiles files;
    files.write("parent.json",
                "{\"extends\": \"" + record_43.string() + "\", \"data\": {\"val_tokens\": -1}}");
    const auto child = files.write("child.json", R"({"extends": "parent.json", "record": 0})");
    expect_user_error([&] { load(child); }, {"parent.json: data.val_tokens: out of range", "found -1"});
    const auto other = files.write(
        "other.json", R"({"extends": "parent.json", "data": {"val_tokens": 10485760, "bos_id": -2}})");
    expect_user_error([&] { load(other); }, {"other.json: data.bos_id: out of range", "found -2"});
}

TEST(Override, ValuesAreJsonOrBareStrings) {
    const Config config =
        load(record_43, {"optimizer.matrix.lr=0.02", "data.train=a/b=c_*.bin", "data.val=\"q\"",
                         "optimizer.adam.betas=[0.5,0.6]", "schedule.stages[1].window.long=9",
                         "model.layers[4].attn.window=short", "runtime.device=cpu", "record=1", "record=7",
                         "schedule.stages[1].max_seq_len=512"});
    EXPECT_EQ(config.optimizer.matrix.lr, 0.02);
    EXPECT_EQ(config.data.train, "a/b=c_*.bin");
    EXPECT_EQ(config.data.val, "q");
    EXPECT_EQ(config.optimizer.adam.beta1, 0.5);
    EXPECT_EQ(config.optimizer.adam.beta2, 0.6);
    EXPECT_EQ(config.schedule.stages[1].window_long, 9);
    EXPECT_EQ(config.schedule.stages[1].max_seq_len, 512);
    EXPECT_EQ(config.model.layers[4].attn->window, Window::short_window);
    EXPECT_EQ(config.runtime.device, RuntimeConfig::Device::cpu);
    EXPECT_EQ(config.record, 7);
    const Config nested = load(record_43, {"model.params.attn_qkvo.init[0].uniform_per_sqrt_dim=0.25"});
    EXPECT_EQ(nested.model.param("attn_qkvo").init[0].value,
              nested.model.param("attn_qkvo").init[1].value / 2);
}

TEST(Override, MayAddAKeyThatTheFilesLeaveOut) {
    EXPECT_EQ(load(record_43, {"optimizer.params.lm_head.wd_mul=0.25"}).optimizer.params[7].wd_mul, 0.25);
    const ConfigFiles files;
    const auto child = files.child(R"("runtime": null)");
    EXPECT_EQ(load(child).runtime.seed, 0u);
    EXPECT_EQ(load(child, {"runtime.seed=5"}).runtime.seed, 5u);
}

void expect_override_error(const std::string& text, std::initializer_list<std::string> parts) {
    expect_user_error([&] { load(record_43, {text}); }, parts);
}

TEST(Override, PathsThatLeadNowhere) {
    expect_override_error("model.n_heads=3", {"--set \"model.n_heads=3\"", "model: no key \"n_heads\"",
                                              "d_model, n_head", "nearest valid name: \"n_head\""});
    expect_override_error("shedule.block_size=3",
                          {"top level: no key \"shedule\"", "nearest valid name: \"schedule\""});
    expect_override_error("lr=0.02", {"top level: no key \"lr\"",
                                      "keys of that name: ", "optimizer.matrix.lr", "optimizer.adam.lr"});
    expect_override_error("data.train.x=3", {"data.train: no key \"x\"", "nothing below a plain value"});
    expect_override_error("schedule.stages[4].start=1", {"schedule.stages: has no entry [4]"});
    expect_override_error("data[0]=1", {"data: has no entry [0]"});
    expect_override_error("schedule.stages.start=1", {"schedule.stages: no key \"start\""});
    expect_override_error("model.layers[1].attn.windw=long",
                          {"model.layers[1].attn: no key \"windw\"", "\"window\""});
    expect_override_error("optimizer.params.embd.lr_mul=1", {"optimizer.params.embd"});
    expect_override_error("extends=record_42.json", {"extends belongs to a file"});
    for (const std::string text :
         {"record", "=1", "", ".record=1", "record.=1", "data..train=x", "schedule.stages[x].start=1",
          "schedule.stages[-1].start=1", "schedule.stages[0=1", "schedule.stages[0]start=1",
          "schedule.stages[99999999999999999999].start=1"})
        expect_override_error(text, {"--set "});
    std::string deep = "a";
    for (int i = 0; i < 100000; ++i) deep += ".a";
    expect_override_error(deep + "=1", {"too deep"});
}

TEST(Override, ValuesAreCheckedLikeAnyOther) {
    expect_override_error("data.val_tokens=many",
                          {"--set \"data.val_tokens=many\": data.val_tokens: wrong type; found \"many\""});
    expect_override_error("optimizer.matrix.lr=1e999", {"optimizer.matrix.lr: wrong type; found \"1e999\""});
    expect_override_error("optimizer.matrix.lr=NaN", {"found \"NaN\""});
    expect_override_error("data.train=\xff", {"--set", "not UTF-8"});
    expect_override_error("data={\"train\": 1, \"train\": 2}", {"data: wrong type"});
}

TEST(Layers, DefaultsLieUnderEachLayersOwnEntry) {
    const Config config = load(record_43);
    const auto& layers = config.model.layers;
    ASSERT_EQ(layers.size(), 12u);
    for (size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(layers[i].index, static_cast<int64_t>(i));
    EXPECT_TRUE(layers[0].skip_layer);
    EXPECT_TRUE(layers[0].before_attn.empty() && layers[0].after_mlp.empty() && !layers[0].attn &&
                !layers[0].mlp);
    EXPECT_FALSE(layers[7].attn.has_value());
    EXPECT_TRUE(layers[7].after_attn.empty());
    EXPECT_TRUE(layers[7].mlp.has_value());
    EXPECT_EQ(text_of(layers[5].before_attn, config), "scalars.block[5,0] x + scalars.block[5,1] x0");
}

TEST(Layers, WithoutAListEveryLayerIsTheDefault) {
    const ConfigFiles files;
    const auto child = files.child(
        R"("model": {"n_layer": 2, "layers": null, "output": {"mix": null},
            "layer_defaults": {"attn": {"v_terms": null}, "before_attn": null},
            "input": {"value_embeds": null},
            "params": {"attn_qkvo": {"shape": [2, 4, "d_model", "d_model"], "layers": [0, 1]},
                       "attn_gate": {"shape": [2, "n_head", 12], "layers": [0, 1]},
                       "mlp_fc": {"shape": [2, "d_model", "mlp_hidden"], "layers": [0, 1]},
                       "mlp_proj": {"shape": [2, "d_model", "mlp_hidden"], "layers": [0, 1]},
                       "value_embeds": null}},
           "optimizer": {"comm": null, "params": {"value_embeds": null,
                       "attn_qkvo": {"matrix_view": [8, "d_model", "d_model"]},
                       "attn_gate": {"matrix_view": [2, "n_head", 12]},
                       "mlp_fc": {"matrix_view": [2, "d_model", "mlp_hidden"]},
                       "mlp_proj": {"matrix_view": [2, "d_model", "mlp_hidden"]}}})");
    const Config config = load(child);
    ASSERT_EQ(config.model.layers.size(), 2u);
    for (const LayerConfig& layer : config.model.layers) {
        EXPECT_TRUE(layer.attn && layer.attn->v_terms.empty() && layer.mlp && layer.before_attn.empty());
        EXPECT_EQ(layer.after_attn.size(), 2u);
    }
    EXPECT_TRUE(config.model.output.mix.empty());
    EXPECT_TRUE(config.model.input.value_embeds.empty());
    EXPECT_EQ(config.model.params.size(), 8u);
}

TEST(Layers, ListsThatCannotBeMerged) {
    const ConfigFiles files;
    const auto expect = [&](const std::string& layers, std::initializer_list<std::string> parts) {
        expect_user_error([&] { load(files.child("\"model\": {\"layers\": " + layers + "}")); }, parts);
    };
    expect("3", {"child.json: model.layers: wrong type; found 3"});
    expect("[3]", {"model.layers[0]: wrong type; found 3", "with the layer's index"});
    expect("[{}]", {"model.layers[0]: required key \"i\" is missing", "0 .. 11"});
    expect("[{\"i\": 12}]", {"model.layers[0].i: not the index of another layer; found 12", "0 .. 11"});
    expect("[{\"i\": -1}]", {"found -1"});
    expect("[{\"i\": 18446744073709551615}]", {"model.layers[0].i"});
    expect("[{\"i\": \"a\"}]", {"found \"a\""});
    expect("[{\"i\": 1}, {\"i\": 1}]", {"model.layers[1].i: not the index of another layer; found 1"});
    expect("[{\"i\": 0, \"skip_layer\": true, \"cache\": \"h\"}]",
           {"model.layers[0].cache: key without a meaning", "allowed: i, skip_layer"});
}

TEST(Layers, ErrorsNameThePlaceInTheFile) {
    const ConfigFiles files;
    // The list starts with layer 5, so positions and indices differ.
    const auto child = files.child(
        R"("model": {"layers": [{"i": 5, "mlp": {"fc": "mlp_fcc"}}, {"i": 0, "skip_layer": true}]})");
    expect_user_error([&] { load(child); },
                      {"child.json: model.layers[0].mlp.fc: no parameter is called \"mlp_fcc\"",
                       "nearest valid name: \"mlp_fc\""});
    const auto defaults = files.child(R"("model": {"layer_defaults": {"attn": {"windw": "long"}}})");
    expect_user_error([&] { load(defaults); },
                      {"child.json: model.layer_defaults.attn.windw: unknown key", "\"window\""});
}

TEST(Extends, ChainsAreFiniteAndOfFiles) {
    const ConfigFiles files;
    for (int i = 0; i < 70; ++i)
        files.write(std::to_string(i) + ".json", "{\"extends\": \"" + std::to_string(i + 1) + ".json\"}");
    expect_user_error([&] { load(files.path() / "0.json"); }, {"0.json: extends", "more than 64 files"});
    ASSERT_EQ(::mkfifo((files.path() / "pipe").c_str(), 0600), 0);
    const auto child = files.write("child.json", R"({"extends": "pipe"})");
    expect_user_error([&] { load(child); }, {"child.json: extends: is no regular file", "pipe"});
}

TEST(Extends, NotInAConfigThatARunSaved) {
    const ConfigFiles files;
    const auto child = files.child("\"record\": 1");
    EXPECT_EQ(load(child).record, 1);
    expect_user_error([&] { load_saved_config(child); },
                      {"child.json: extends", "record_43.json", "extends nothing"});
    const auto saved = files.write("saved.json", load(child).resolved_json);
    EXPECT_EQ(load_saved_config(saved).hash, load(child).hash);
}

// 1,024 layers of 100 KB each would be 100 MB from one file of 100 KB.
TEST(Layers, DefaultsTimesLayersAreLimited) {
    const ConfigFiles files;
    const std::string text(100'000, 'x');
    const auto child =
        files.child("\"model\": {\"n_layer\": 1024, \"layer_defaults\": {\"cache\": \"" + text + "\"}}");
    expect_user_error([&] { load(child); },
                      {"model.layer_defaults: too large", "1024 times", "67108864 bytes in all"});
}

}  // namespace
}  // namespace speedrun

#include "config/notation.h"
#include "config/sections.h"

namespace speedrun {
namespace {

void visit_slice(Fields& f, Slice& slice) {
    f.integer({"at", "first element"}, slice.at, {});
    f.dims({"shape", "[] is one element"}, slice.shape, {0, 4});
    f.numbers({"init", "a number, or numbers that repeat over the slice"}, slice.init, any_number, {1, 4096});
}

void visit_param(Fields& f, ParamConfig& param) {
    f.dims({"shape",
            "of the whole bank; a per-layer parameter has one entry of dimension 0 for each of its layers"},
           param.shape, {1, 5});
    f.choice({"dtype", "of the master copy and its gradient"}, param.dtype, dtype_names);
    f.choice({"master", "bf16+u16: the optimizer keeps 16 more bits of each bf16 number, which is cut off",
              optional_key},
             param.master, std::array{"value", "bf16+u16"});
    f.boolean({"round_in_use", "coefficients read it as bf16 where activations are bf16", optional_key},
              param.round_in_use);
    f.layers({"layers", "layers that own entries, ascending, or all; absent: not a per-layer parameter",
              optional_key},
             param.layers);
    f.integer({"entries_per_layer", "entries of dimension 0 that each of its layers has", optional_key},
              param.entries_per_layer, {1, 1 << 20});
    f.named_objects({"slices", "named parts of a parameter of one dimension", optional_key}, param.slices,
                    &Slice::name, visit_slice);
    if (f.describes() || param.slices.empty())
        f.init({"init",
                "one for the whole, or a list with one for each index of dimension 1; with slices: theirs"},
               param.init);
    f.text({"state_dict",
            "name in weight files; {i}: layer, {k}: index in dimension 0; without either, of the whole bank; "
            "absent: the parameter's name",
            optional_key},
           param.state_dict);
    f.dims({"state_dict_shape", "shape of one entry in weight files; absent: the bank's own", optional_key},
           param.state_dict_shape, {1, 5});
    f.boolean({"state_dict_transposed", "weight files hold the transpose of the matrix", optional_key},
              param.state_dict_transposed);
}

void visit_bigram(Fields& f, Bigram& bigram) {
    f.text({"table", "parameter [rows, dims], the first channels of d_model"}, bigram.table);
    f.integer({"mul_cur", "multiplies the token"}, bigram.mul_cur, {1, (int64_t{1} << 31) - 1});
    f.integer({"mul_prev", "multiplies the token before"}, bigram.mul_prev, {1, (int64_t{1} << 31) - 1});
    f.choice({"previous_of_row_1", "what the second row takes for the token before", optional_key},
             bigram.previous_of_row_1, std::array{"row_0", "token"});
    f.text(
        {"signs",
         "parameter [sign rows, dims]: multiplies the table's rows, by the row (token before xor token) mod "
         "sign rows; absent: nothing",
         optional_key},
        bigram.signs);
}

void visit_norm_gain(Fields& f, WeightRef& gain) {
    f.weight({"norm_gain", "[d_model], multiplies the norm; absent: nothing does", optional_key}, gain);
}

// "qkvo", "qk" and "vo" name several matrices at once that follow each other; the single ones win.
void visit_projections(Fields& f, AttentionConfig& attn) {
    WeightRef qkvo, qk, vo;
    f.weight({"qkvo", "q, k, v and o, [4 * d_model, d_model] one after the other", optional_key}, qkvo);
    f.weight({"qk", "q and k, the same way", optional_key}, qk);
    f.weight({"vo", "v and o, the same way", optional_key}, vo);
    split_weight(qkvo, {&attn.q, &attn.k, &attn.v, &attn.o});
    split_weight(qk, {&attn.q, &attn.k});
    split_weight(vo, {&attn.v, &attn.o});
    f.weight({"q", "projection of queries, [d_model, d_model], stored [out, in]", optional_key}, attn.q);
    f.weight({"k", "of keys", optional_key}, attn.k);
    f.weight({"v", "of values", optional_key}, attn.v);
    f.weight({"o", "of the heads' output", optional_key}, attn.o);
    f.weight({"q_bias", "[d_model], is added to the queries; absent: nothing is", optional_key}, attn.q_bias);
    f.weight({"k_bias", "the same for keys", optional_key}, attn.k_bias);
    f.weight({"v_bias", "the same for values", optional_key}, attn.v_bias);
    f.weight({"o_bias", "the same for the output", optional_key}, attn.o_bias);
}

void visit_head_channels(Fields& f, HeadChannels& range) {
    std::vector<int64_t> channels;
    if (range.end > 0) channels = {range.begin, range.end};
    f.dims({"channels", "[begin, end) of every head, such as [\"head_dim/4\", \"head_dim/2\"]"}, channels,
           {2, 2});
    if (channels.size() == 2) range = {channels[0], channels[1]};
}

void visit_composition(Fields& f, DynamicComposition& dc) {
    f.integer({"window", "keys that a query sees at most, itself included"}, dc.window,
              {1, DynamicComposition::longest_window});
    f.coefficient(
        {"w1",
         "how much of each head's map the composed one has: outputs of a net, one a head, which are "
         "normed over the heads"},
        dc.w1);
    f.coefficient(
        {"w2", "what multiplies each head's part of the composed output: outputs of a net, one a head"},
        dc.w2);
}

void visit_attention(Fields& f, AttentionConfig& attn) {
    visit_projections(f, attn);
    f.text({"input", "the source whose norm it reads; absent: x", optional_key}, attn.input);
    visit_norm_gain(f, attn.norm_gain);
    f.choice({"kind",
              "causal, or paired: heads j and j + n_head / 2 attend as one head over twice as many positions",
              optional_key},
             attn.kind, std::array{"causal", "paired"});
    f.choice({"window", "which of the stage's two windows", optional_key}, attn.window,
             std::array{"short", "long"});
    f.objects({"key_offset", "channels of keys that come from the token before; absent: none", optional_key},
              attn.key_offset, visit_head_channels);
    f.mix({"v_terms", "terms of the values, from \"v\", \"ve.K\" and the sources of x; absent: v unchanged",
           optional_key},
          attn.v_terms);
    f.maybe({"dc",
             "dynamic composition: one attention map for all heads, composed of theirs for each token, whose "
             "output is added to each head's; null: none",
             optional_key},
            attn.dc, visit_composition);
    f.coefficient(
        {"xsa",
         "a number for each head, or outputs of a net: tanh of it says how much of what is parallel to the "
         "head's own value is taken out of its output; absent: nothing",
         optional_key},
        attn.xsa);
    f.coefficient({"out_gate", "multiplies each head's output; gates may read the input, a", optional_key},
                  attn.out_gate);
}

void visit_mlp(Fields& f, MlpConfig& mlp) {
    constexpr std::array layouts{"in_out", "out_in"};
    f.text({"input", "the source whose norm it reads; absent: x", optional_key}, mlp.input);
    visit_norm_gain(f, mlp.norm_gain);
    f.weight({"fc", "up-projection"}, mlp.fc);
    f.weight({"proj", "down-projection"}, mlp.proj);
    f.choice({"fc_layout", "in_out: [d_model, mlp_hidden]; out_in: [mlp_hidden, d_model]", optional_key},
             mlp.fc_layout, layouts);
    f.choice({"proj_layout", "in_out: [mlp_hidden, d_model]; out_in: [d_model, mlp_hidden]", optional_key},
             mlp.proj_layout, layouts);
    f.weight({"fc_bias", "[mlp_hidden], is added to the up-projection; absent: nothing is", optional_key},
             mlp.fc_bias);
    f.weight({"proj_bias", "[d_model], is added to the down-projection; absent: nothing is", optional_key},
             mlp.proj_bias);
}

void visit_yarn(Fields& f, ModelConfig::Rope& rope) {
    f.number({"alpha", "rotations below which a frequency is interpolated fully", optional_key},
             rope.yarn_alpha, not_negative);
    f.number({"beta", "rotations above which a frequency is left alone", optional_key}, rope.yarn_beta,
             not_negative);
    f.number({"softmax_scale_init", "attention scale before any window change", optional_key},
             rope.softmax_scale_init, above_zero);
    f.number({"softmax_scale_log_coef", "scale *= 1 + this * ln(new / old window)", optional_key},
             rope.softmax_scale_log_coef, not_negative);
}

void visit_rope(Fields& f, ModelConfig::Rope& rope) {
    f.number({"theta", "base: frequencies run from 1 to 1 / theta", optional_key}, rope.theta, above_zero);
    f.integer({"rotary_dims", "dims of a head that turn; the other frequencies are zero"}, rope.rotary_dims,
              positive);
    f.choice(
        {"layout", "which channels turn together: i and head_dim / 2 + i, or 2i and 2i + 1", optional_key},
        rope.layout, std::array{"halves", "pairs"});
    f.choice({"table_dtype", "of the cos and sin tables", optional_key}, rope.table_dtype, dtype_names);
    f.object({"yarn", "how frequencies change with the long window", optional_key},
             [&](Fields& yarn) { visit_yarn(yarn, rope); });
}

void visit_coef_net(Fields& f, CoefNet& net) {
    f.integer({"entry_of_layer",
               "evaluated on entering this layer, of 0 before input.init; -1: after the last", optional_key},
              net.entry_of_layer, {-1, max_layer});
    f.text({"input", "the source that it reads; absent: x", optional_key}, net.input);
    f.weight({"w1", "[hidden, d_model]"}, net.w1);
    f.weight({"w2", "[outputs, hidden]"}, net.w2);
    f.weight({"b2", "[outputs]"}, net.b2);
    std::optional<Coefficient> scale;
    if (net.scale != Coefficient{}) scale = net.scale;
    f.coefficient(
        {"scale", "multiplies the outputs, bias included: a number, or an element; absent: 1", optional_key},
        scale);
    net.scale = scale.value_or(Coefficient{});
}

void visit_input(Fields& f, ModelConfig::Input& input) {
    f.text({"token", "embedding table [vocab_size, d_model]"}, input.token);
    f.text({"tied_to", "read instead of it up to schedule.untie_after_step; absent: nothing", optional_key},
           input.tied_to);
    f.text(
        {"value_embeds", "bank [n, vocab_size, d_model] behind ve.0 .. ve.n-1; absent: none", optional_key},
        input.value_embeds);
    f.maybe(
        {"bigram", "rows of a table by hashes of two tokens, behind x0_bigram; absent: none", optional_key},
        input.bigram, visit_bigram);
    f.coefficient({"smear", "e_t += smear * e_(t-1); gates may read the embedding, e", optional_key},
                  input.smear);
    visit_norm_gain(f, input.norm_gain);
    f.mix({"init", "x before the first layer; absent: x0", optional_key}, input.init);
}

void visit_output(Fields& f, ModelConfig::Output& output) {
    f.mix({"mix", "terms of the last hidden state; absent: x", optional_key}, output.mix);
    visit_norm_gain(f, output.norm_gain);
    f.text({"head", "parameter [vocab_size, d_model]"}, output.head);
    f.weight({"head_bias", "[vocab_size], is added to the logits before their cap; absent: nothing is",
              optional_key},
             output.head_bias);
    f.object({"softcap", "what bounds the logits z", optional_key}, [&](Fields& cap) {
        cap.choice(
            {"form", "sigmoid: a * sigmoid((z + b) / c); rsqrt: a * z / sqrt(z^2 + a^2)", optional_key},
            output.softcap.form, std::array{"sigmoid", "rsqrt"});
        cap.number({"a", "largest logit", optional_key}, output.softcap.a, above_zero);
        cap.number({"b", "sigmoid: shift", optional_key}, output.softcap.b, any_number);
        cap.number({"c", "sigmoid: width", optional_key}, output.softcap.c, above_zero);
    });
}

void visit_lane(Fields& f, LaneConfig& lane) {
    f.mix({"entry", "the lane on entering the layer; absent: unchanged", optional_key}, lane.entry);
    f.mix({"after_attn", "the lane after attention", optional_key}, lane.after_attn);
    f.mix({"after_mlp", "the lane after the MLP", optional_key}, lane.after_mlp);
}

}  // namespace

void visit_layer(Fields& f, LayerConfig& layer) {
    f.integer({"i", "index of the layer"}, layer.index, {0, max_layer});
    f.inside_layer(layer.index);
    f.boolean({"skip_layer", "the layer does nothing at all, and takes no defaults", optional_key},
              layer.skip_layer);
    if (layer.skip_layer && !f.describes()) return;
    f.mix({"entry", "x on entering the layer; absent: unchanged", optional_key}, layer.entry);
    f.text({"cache_entry", "name under which mixes can use x as it enters", optional_key}, layer.cache_entry);
    f.mix({"before_attn", "x before attention", optional_key}, layer.before_attn);
    f.maybe({"attn", "attention; null: none", optional_key}, layer.attn, visit_attention);
    f.mix({"after_attn", "x after attention, from \"attn_out\" and others", optional_key}, layer.after_attn);
    f.maybe({"mlp", "relu(norm(input) fc)^2 proj; null: none", optional_key}, layer.mlp, visit_mlp);
    f.mix({"after_mlp", "x after the MLP, from \"mlp_out\" and others", optional_key}, layer.after_mlp);
    f.maybe({"lane1", "mixes of a second stream, the source lane1; absent: it is left alone", optional_key},
            layer.lane1, visit_lane);
    f.text({"cache_after_attn", "name under which later mixes can use x between attention and MLP",
            optional_key},
           layer.cache_after_attn);
    f.text({"cache", "name under which later mixes can use this layer's output", optional_key}, layer.cache);
}

void visit_model(Fields& f, ModelConfig& model) {
    f.integer({"vocab_size", "rows of the embedding tables and the head, padding included"}, model.vocab_size,
              positive);
    f.integer({"d_model", "width; n_head * head_dim"}, model.d_model, positive);
    f.integer({"n_head", "attention heads"}, model.n_head, positive);
    f.integer({"head_dim", "channels of a head"}, model.head_dim, positive);
    f.integer({"n_layer", "layers, skipped ones included"}, model.n_layer, {1, 1024});
    f.integer({"mlp_hidden", "hidden channels of an MLP"}, model.mlp_hidden, positive);
    f.number({"norm_eps", "of every RMS norm", optional_key}, model.norm_eps, above_zero);
    f.object({"rope", "rotary position embedding"}, [&](Fields& rope) { visit_rope(rope, model.rope); });
    f.named_objects({"params", "every parameter, in the order of construction"}, model.params,
                    &ParamConfig::name, visit_param);
    for (ParamConfig& param : model.params)
        if (!param.slices.empty()) param.init = {Init{}};
    f.params_complete();
    f.named_objects({"coef_nets", "nets that make coefficients for each token; absent: none", optional_key},
                    model.coef_nets, &CoefNet::name, visit_coef_net);
    f.object({"input", "from tokens to the first hidden state"},
             [&](Fields& in) { visit_input(in, model.input); });
    f.defaults({"layer_defaults", "what every layer has unless its own entry says otherwise", optional_key},
               [](Fields& defaults) {
                   LayerConfig layer;
                   visit_layer(defaults, layer);
               });
    f.objects({"layers", "entries that differ from the defaults, each naming its layer by i", optional_key},
              model.layers, visit_layer);
    f.object({"output", "from the last hidden state to logits"},
             [&](Fields& out) { visit_output(out, model.output); });
}

}  // namespace speedrun

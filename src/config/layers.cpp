// model.layer_defaults + model.layers -> one whole entry a layer
#include <vector>

#include "config/overlay.h"

namespace speedrun {
namespace {

constexpr int64_t max_layers = 1024;
constexpr size_t max_expanded_bytes = size_t{64} << 20;  // of all layers together, as text
const std::string defaults_path = "model.layer_defaults";
const std::string layers_path = "model.layers";

bool is_null(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null();
}

bool is_true(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found != object.end() && *found == true;
}

// For each layer its position in the file's list, or -1.
std::vector<int64_t> positions(const Json& layers, int64_t n_layer, const Report& report) {
    std::vector<int64_t> position(static_cast<size_t>(n_layer), -1);
    const std::string allowed = "a layer index, 0 .. " + std::to_string(n_layer - 1) + ", each at most once";
    for (size_t p = 0; p < layers.size(); ++p) {
        const std::string path = join_path(layers_path, p);
        if (!layers[p].is_object())
            report.fail(path, "wrong type",
                        {brief_json(layers[p]), "an object with the layer's index \"i\"", ""});
        const auto i = layers[p].find("i");
        if (i == layers[p].end()) report.fail(path, "required key \"i\" is missing", {"", allowed, ""});
        if (!i->is_number_integer() || *i < 0 || *i >= n_layer || position[i->get<size_t>()] != -1)
            report.fail(path + ".i", "not the index of another layer", {brief_json(*i), allowed, ""});
        position[i->get<size_t>()] = static_cast<int64_t>(p);
    }
    return position;
}

// A branch that is off contributes nothing, so the mix that would add it goes too, unless the layer itself
// gives one.
void drop_mix_of_missing_branch(Json& layer, const Json& own, const char* branch, const char* mix) {
    if (is_null(layer, branch) && !own.contains(mix)) layer.erase(mix);
}

Json whole_layer(const Json& defaults, const Json& own, size_t index, const std::string& own_path,
                 const Origins& before, Origins& origins) {
    const std::string path = join_path(layers_path, index);
    const auto from = [&](const std::string& source) {
        return [&, source](const std::string& at) { return before.find(source + at.substr(path.size())); };
    };
    Json layer = Json::object();
    layer["i"] = index;
    if (!is_true(own, "skip_layer") && defaults.is_object())
        overlay(layer, path, defaults, from(defaults_path), origins);
    if (!own_path.empty()) overlay(layer, path, own, from(own_path), origins);
    drop_mix_of_missing_branch(layer, own, "attn", "after_attn");
    drop_mix_of_missing_branch(layer, own, "mlp", "after_mlp");
    return layer;
}

}  // namespace

void expand_layers(Json& root, Origins& origins) {
    const Report report(origins);
    if (!root.contains("model") || !root["model"].is_object()) return;  // the reader says so
    Json& model = root["model"];
    const auto n_layer = model.find("n_layer");
    if (n_layer == model.end() || !n_layer->is_number_integer() || *n_layer < 1 || *n_layer > max_layers)
        return;
    Json layers = is_null(model, "layers") ? Json::array() : model["layers"];
    if (!layers.is_array())
        report.fail(layers_path, "wrong type", {brief_json(layers), "an array of layers", ""});
    const auto position = positions(layers, n_layer->get<int64_t>(), report);

    const Json defaults = model.contains("layer_defaults") ? model["layer_defaults"] : Json();
    if (!defaults.is_null() && defaults.dump().size() * position.size() > max_expanded_bytes)
        report.fail(
            defaults_path, "too large to be repeated for each layer",
            {std::to_string(position.size()) + " times " + std::to_string(defaults.dump().size()) + " bytes",
             std::to_string(max_expanded_bytes) + " bytes in all", ""});
    const Origins before = origins;
    origins.erase_below(layers_path);
    Json whole = Json::array();
    for (size_t i = 0; i < position.size(); ++i) {
        const bool listed = position[i] >= 0;
        const auto p = listed ? static_cast<size_t>(position[i]) : size_t{0};
        whole.push_back(whole_layer(defaults, listed ? layers[p] : Json::object(), i,
                                    listed ? join_path(layers_path, p) : "", before, origins));
    }
    model["layers"] = std::move(whole);
}

}  // namespace speedrun

// --set a.b[2].c=VALUE
#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include "config/overlay.h"
#include "config/schema.h"
#include "util/error.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

struct Step {
    std::string key;  // "" for an index
    std::optional<size_t> index;
};

[[noreturn]] void fail(const std::string& text, const std::string& what) {
    throw UserError("--set " + in_quotes(text) + ": " + printable(what));
}

// "a.b[2].c" -> a, b, 2, c
std::vector<Step> parse_path(const std::string& text, std::string_view path) {
    std::vector<Step> steps;
    while (!path.empty()) {
        const size_t end = std::min(path.find_first_of(".["), path.size());
        if (end == 0) fail(text, "the path has an empty key");
        steps.push_back({std::string(path.substr(0, end)), {}});
        path.remove_prefix(end);
        while (path.starts_with('[')) {
            size_t index = 0;
            const auto [stop, error] = std::from_chars(path.data() + 1, path.data() + path.size(), index);
            if (error != std::errc{} || stop == path.data() + path.size() || *stop != ']')
                fail(text, "an index is written [0], [1], ...");
            steps.push_back({"", index});
            path.remove_prefix(static_cast<size_t>(stop - path.data()) + 1);
        }
        if (path.empty()) break;
        if (!path.starts_with('.') || path.size() == 1) fail(text, "the path is written a.b[0].c");
        path.remove_prefix(1);
    }
    if (steps.empty()) fail(text, "the path is missing");
    if (steps.size() > static_cast<size_t>(max_json_depth)) fail(text, "the path is too deep");
    return steps;
}

Json parse_value(const std::string& text, const std::string& value) {
    try {
        return parse_json(value, "value");
    } catch (const UserError&) {  // not JSON: a bare string, as a shell user writes a path
    }
    try {
        static_cast<void>(Json(value).dump());
    } catch (const Json::type_error&) {
        fail(text, "the value is not UTF-8");
    }
    return value;
}

// The schemas that one place of a document may follow: several where the schema says anyOf.
using Shapes = std::vector<const Json*>;

void add_shapes(const Json& schema, Shapes& shapes) {
    if (const auto reference = schema.find("$ref"); reference != schema.end()) {
        add_shapes(config_schema().at(Json::json_pointer(reference->get<std::string>().substr(1))), shapes);
    } else if (const auto any = schema.find("anyOf"); any != schema.end()) {
        for (const Json& choice : *any) add_shapes(choice, shapes);
    } else {
        shapes.push_back(&schema);
    }
}

constexpr int kDeepestName = 6;  // objects within objects of a config: the schema has recursive ones

// Adds the paths below `path` whose last key is `key`. Entries of lists and tables have no names of their
// own.
void find_paths(const Shapes& shapes, const std::string& path, const std::string& key, int depth,
                std::vector<std::string>& found) {
    for (const Json* shape : shapes) {
        const auto properties = shape->find("properties");
        if (properties == shape->end() || depth == kDeepestName) continue;
        for (const auto& [name, schema] : properties->items()) {
            const std::string below = join_path(path, name);
            if (name == key && std::ranges::find(found, below) == found.end()) found.push_back(below);
            Shapes inner;
            add_shapes(schema, inner);
            find_paths(inner, below, key, depth + 1, found);
        }
    }
}

// What a key at the top that is none may have meant: "; keys of that name: a.lr, b.lr", or the nearest name.
std::string what_was_meant(const std::string& path, const Shapes& shapes, const std::string& key,
                           const std::vector<std::string>& known) {
    std::vector<std::string> paths;
    if (path.empty()) find_paths(shapes, "", key, 0, paths);
    if (!paths.empty()) return "; keys of that name: " + joined(paths);
    const std::string near = nearest_name(key, known);
    return near.empty() ? "" : "; nearest valid name: " + in_quotes(near);
}

Shapes members(const std::string& text, const std::string& path, const Shapes& shapes,
               const std::string& key) {
    Shapes found;
    std::vector<std::string> known;
    for (const Json* shape : shapes) {
        const auto named = shape->find("additionalProperties");
        if (named != shape->end() && named->is_object()) add_shapes(*named, found);
        const auto properties = shape->find("properties");
        if (properties == shape->end()) continue;
        if (properties->contains(key)) add_shapes(properties->at(key), found);
        for (const auto& [name, unused] : properties->items())
            if (name != "extends" && name != "$schema" && name != "why") known.push_back(name);
    }
    if (!found.empty()) return found;
    fail(text, (path.empty() ? "top level" : path) + ": no key " + in_quotes(key) +
                   "; allowed: " + (known.empty() ? "nothing below a plain value" : joined(known)) +
                   what_was_meant(path, shapes, key, known));
}

Shapes elements(const Shapes& shapes) {
    Shapes found;
    for (const Json* shape : shapes)
        if (const auto items = shape->find("items"); items != shape->end()) add_shapes(*items, found);
    return found;
}

}  // namespace

void apply_override(Json& root, const std::string& text, Origins& origins) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos) fail(text, "written KEY=VALUE");
    const Json value = parse_value(text, text.substr(equals + 1));
    Json* target = &root;
    Shapes shapes;
    add_shapes(config_schema(), shapes);
    std::string path;
    for (const Step& step : parse_path(text, std::string_view(text).substr(0, equals))) {
        if (step.index) {
            if (!target->is_array() || *step.index >= target->size())
                fail(text, path + ": has no entry [" + std::to_string(*step.index) + "]; found " +
                               brief_json(*target));
            shapes = elements(shapes);
            target = &(*target)[*step.index];
            path = join_path(path, *step.index);
        } else {
            if (path.empty() && (step.key == "extends" || step.key == "$schema" || step.key == "why"))
                fail(text, step.key + " belongs to a file");
            shapes = members(text, path, shapes, step.key);
            if (target->is_null()) *target = Json::object();
            if (!target->is_object()) fail(text, path + ": is no object; found " + brief_json(*target));
            if (step.key == "rule") choose_rule(*target, path, value, origins);
            target = &(*target)[step.key];
            path = join_path(path, step.key);
        }
    }
    *target = value;
    origins.erase_below(path);
    origins.set(path, {"--set " + in_quotes(text), path});
}

}  // namespace speedrun

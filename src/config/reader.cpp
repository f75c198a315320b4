#include "config/reader.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "config/key_list.h"
#include "config/notation.h"
#include "util/text.h"

namespace speedrun {
namespace {

std::string describe(IntRange range) {
    return "an integer, " + std::to_string(range.min) + " .. " + std::to_string(range.max);
}

std::string describe(NumberRange range) {
    std::string text = "a number";
    if (range.min != std::numeric_limits<double>::lowest())
        text += (range.min_allowed ? " >= " : " > ") + Json(range.min).dump();
    if (range.max != std::numeric_limits<double>::max())
        text += (range.max_allowed ? ", <= " : ", < ") + Json(range.max).dump();
    return text;
}

std::string describe(Count count) {
    if (count.min == count.max) return std::to_string(count.min);
    return std::to_string(count.min) + " to " + std::to_string(count.max);
}

}  // namespace

void Reader::read(const Json& object, const std::string& path, Scope scope, const Visit& visit) {
    Reader reader(object, path, scope);
    if (!object.is_object()) reader.fail_type(path, object, "an object");
    // Unknown keys first: a misspelt key is better named than the one missed in its place.
    const auto known = key_list(visit);
    for (const auto& [key, value] : object.items())
        if (std::find(known.begin(), known.end(), key) == known.end())
            scope.report->fail_name(join_path(path, key.substr(0, 100)), "unknown key", key, known);
    visit(reader);
    reader.finish();
}

void Reader::finish() const {
    for (const auto& [key, value] : object_.items())
        if (!asked_.contains(key) && !value.is_null())  // null takes an inherited key out
            scope_.report->fail_name(join_path(path_, key), "key without a meaning beside the others here",
                                     key, std::vector<std::string>(asked_.begin(), asked_.end()));
}

const Json* Reader::find(const Key& key) {
    asked_.insert(key.name);
    const auto found = object_.find(key.name);
    if (found != object_.end() && !found->is_null()) return &*found;
    if (!key.required || scope_.partial) return nullptr;
    scope_.report->fail(at(key), found == object_.end() ? "required key is missing" : "required key is null",
                        {"", key.about, ""});
}

const Json* Reader::find_array(const Key& key, Count count, const std::string& of) {
    const Json* value = find(key);
    if (value == nullptr) return nullptr;
    if (!value->is_array() || value->size() < count.min || value->size() > count.max)
        fail_type(at(key), *value, "an array of " + describe(count) + " " + of);
    return value;
}

void Reader::fail_type(const std::string& path, const Json& value, const std::string& allowed) const {
    scope_.report->fail(path, "wrong type or size", {brief_json(value), allowed, ""});
}

int64_t Reader::to_integer(const std::string& path, const Json& value, IntRange range) const {
    // As in JSON Schema, 1e3 is an integer. 2^53: beyond it a double no longer says which.
    const bool integral =
        value.is_number_integer() ||
        (value.is_number_float() && std::trunc(value.get<double>()) == value.get<double>() &&
         std::abs(value.get<double>()) <= 9007199254740992.0);
    if (!integral) scope_.report->fail(path, "wrong type", {brief_json(value), describe(range), ""});
    const bool huge = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX};
    if (huge || value.get<int64_t>() < range.min || value.get<int64_t>() > range.max)
        scope_.report->fail(path, "out of range", {brief_json(value), describe(range), ""});
    return value.get<int64_t>();
}

double Reader::to_number(const std::string& path, const Json& value, NumberRange range) const {
    if (!value.is_number()) scope_.report->fail(path, "wrong type", {brief_json(value), describe(range), ""});
    const auto x = value.get<double>();
    const bool above = range.min_allowed ? x >= range.min : x > range.min;
    const bool below = range.max_allowed ? x <= range.max : x < range.max;
    if (!above || !below) scope_.report->fail(path, "out of range", {brief_json(value), describe(range), ""});
    return x;
}

// Defaults are read as the layers that take them: only there it is known which layer's entries are meant.
template <typename T>
T Reader::notation(const std::string& path, const Json& value, const std::function<T()>& parse) const {
    if (scope_.partial) return {};
    try {
        return parse();
    } catch (const NotationError& error) {
        scope_.report->fail(path, error.what, {brief_json(value), error.allowed, error.nearest});
    }
}

void Reader::integer(Key key, int64_t& value, IntRange range) {
    if (const Json* json = find(key)) value = to_integer(at(key), *json, range);
}

void Reader::seed(Key key, uint64_t& value) {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_number_unsigned() && !(json->is_number_integer() && *json >= 0))
        scope_.report->fail(at(key), "wrong type", {brief_json(*json), "an integer, 0 .. 2^64 - 1", ""});
    value = json->get<uint64_t>();
}

void Reader::number(Key key, double& value, NumberRange range) {
    if (const Json* json = find(key)) value = to_number(at(key), *json, range);
}

void Reader::boolean(Key key, bool& value) {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_boolean())
        scope_.report->fail(at(key), "wrong type", {brief_json(*json), "true, false", ""});
    value = json->get<bool>();
}

void Reader::text(Key key, std::string& value) {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_string() || json->get_ref<const std::string&>().empty())
        scope_.report->fail(at(key), "wrong type", {brief_json(*json), "a string that is not empty", ""});
    value = json->get<std::string>();
}

void Reader::pick(Key key, size_t& index, std::span<const char* const> names) {
    const Json* json = find(key);
    if (json == nullptr) return;
    const std::vector<std::string> allowed(names.begin(), names.end());
    const std::string name = json->is_string() ? json->get<std::string>() : json->dump();
    const auto found = std::find(allowed.begin(), allowed.end(), name);
    if (!json->is_string() || found == allowed.end())
        scope_.report->fail(at(key), "not one of the choices",
                            {brief_json(*json), joined(allowed), nearest_name(name, allowed)});
    index = static_cast<size_t>(found - allowed.begin());
}

void Reader::layers(Key key, std::vector<int64_t>& values) {
    if (const Json* all = find(key); all != nullptr && *all == "all") {
        values.resize(static_cast<size_t>(scope_.model->n_layer));
        std::iota(values.begin(), values.end(), 0);
        return;
    }
    const Json* json = find_array(key, {1, 1024}, "layers, or \"all\"");
    if (json == nullptr) return;
    values.clear();
    for (const Json& item : *json)
        values.push_back(to_integer(join_path(at(key), values.size()), item, {0, max_layer}));
}

void Reader::texts(Key key, std::vector<std::string>& values) {
    const Json* json = find_array(key, {1, 1024}, "strings");
    if (json == nullptr) return;
    values.clear();
    for (const Json& item : *json) {
        if (!item.is_string()) fail_type(join_path(at(key), values.size()), item, "a string");
        values.push_back(item.get<std::string>());
    }
}

void Reader::numbers(Key key, std::vector<double>& values, NumberRange range, Count count) {
    if (const auto found = object_.find(key.name);
        count.min == 1 && found != object_.end() && found->is_number()) {
        asked_.insert(key.name);
        values = {to_number(at(key), *found, range)};
        return;
    }
    const Json* json = find_array(key, count, "numbers");
    if (json == nullptr) return;
    values.clear();
    for (const Json& item : *json)
        values.push_back(to_number(join_path(at(key), values.size()), item, range));
}

void Reader::dims(Key key, std::vector<int64_t>& values, Count rank) {
    const Json* json = find_array(key, rank, "sizes");
    if (json == nullptr) return;
    values.clear();
    for (const Json& item : *json)
        values.push_back(notation<int64_t>(join_path(at(key), values.size()), item,
                                           [&] { return parse_dim(item, *scope_.model); }));
}

Init Reader::to_init(const std::string& path, const Json& value) const {
    static const std::vector<std::string> kinds{
        "zeros",      "constant", "normal", "normal_per_sqrt_dim", "uniform", "uniform_per_sqrt_dim",
        "random_sign"};
    if (value == "random_sign") return {Init::Kind::random_sign, 1};
    if (value.is_string() && value != "zeros")
        scope_.report->fail_name(path, "no initialiser", value.get<std::string>(), kinds);
    if (value == "zeros") return {};
    std::vector<std::string> given;  // null takes an inherited kind out
    if (value.is_object())
        for (const auto& [key, argument] : value.items())
            if (!argument.is_null()) given.push_back(key);
    if (given.size() != 1)
        fail_type(
            path, value,
            R"("zeros", "random_sign", or one of {"constant": value}, {"normal": std}, {"uniform": std}, )"
            R"({"normal_per_sqrt_dim" or "uniform_per_sqrt_dim": std * sqrt(d_model)}; null takes an inherited )"
            R"(one out)");
    const std::string& kind = given[0];
    const std::string inside = join_path(path, kind.substr(0, 100));
    if (kind == "constant") return {Init::Kind::constant, to_number(inside, value[kind], {-1e30, 1e30})};
    const bool drawn = kind.starts_with("normal") || kind.starts_with("uniform");
    if (!drawn || std::ranges::find(kinds, kind) == kinds.end())
        scope_.report->fail_name(inside, "no initialiser", kind, kinds);
    const double deviation = to_number(inside, value[kind], {0, 1e30, false});
    const double scale =
        kind.ends_with("_per_sqrt_dim") ? std::pow(static_cast<double>(scope_.model->d_model), -0.5) : 1;
    return {kind.starts_with("normal") ? Init::Kind::normal : Init::Kind::uniform, deviation * scale};
}

void Reader::init(Key key, std::vector<Init>& values) {
    const Json* json = find(key);
    if (json == nullptr) return;
    values.clear();
    if (!json->is_array()) {
        values.push_back(to_init(at(key), *json));
        return;
    }
    if (json->empty() || json->size() > 4096) fail_type(at(key), *json, "1 to 4096 initialisers");
    for (const Json& item : *json) values.push_back(to_init(join_path(at(key), values.size()), item));
}

void Reader::weight(Key key, WeightRef& value) {
    std::string text;
    this->text(key, text);
    if (!text.empty())
        value = notation<WeightRef>(at(key), text, [&] { return parse_weight(text, names()); });
}

void Reader::coefficient(Key key, std::optional<Coefficient>& value) {
    if (const Json* json = find(key))
        value = notation<Coefficient>(at(key), *json, [&] { return parse_coefficient(*json, names()); });
}

void Reader::mix(Key key, std::vector<MixTerm>& terms) {
    const Json* json = find_array(key, {1, 64}, "terms [coefficient, source]");
    if (json == nullptr) return;
    terms.clear();
    for (const Json& item : *json) {
        const std::string path = join_path(at(key), terms.size());
        if (!item.is_array() || item.size() != 2 || !item[1].is_string())
            fail_type(path, item, "a term [coefficient, \"source\"]");
        MixTerm term;
        term.coefficient =
            notation<Coefficient>(path + "[0]", item[0], [&] { return parse_coefficient(item[0], names()); });
        term.source = item[1].get<std::string>();
        terms.push_back(term);
    }
}

void Reader::object(Key key, const Visit& visit) {
    if (const Json* json = find(key)) read(*json, at(key), scope_, visit);
}

void Reader::nullable(Key key, bool& present, const Visit& visit) {
    const Json* json = find(key);
    if (json == nullptr) return;
    present = true;
    read(*json, at(key), scope_, visit);
}

void Reader::list(Key key, size_t, const VisitItem& visit) {
    const Json* json = find_array(key, {1, 1024}, "objects");
    if (json == nullptr) return;
    for (size_t i = 0; i < json->size(); ++i)
        read((*json)[i], join_path(at(key), i), scope_, [&](Fields& fields) { visit(fields, i); });
}

void Reader::named(Key key, std::span<const std::string>, const VisitNamed& visit) {
    const Json* json = find(key);
    if (json == nullptr) return;
    if (!json->is_object()) fail_type(at(key), *json, "an object of named objects");
    size_t index = 0;
    for (const auto& [name, value] : json->items()) {
        if (!is_identifier(name))
            scope_.report->fail(
                at(key), "not a name",
                {in_quotes(name), "a letter or _, then letters, digits and _; at most 100", ""});
        if (value.is_null()) continue;  // removed from what this config extends
        read(value, join_path(at(key), name), scope_, [&](Fields& fields) { visit(fields, index, name); });
        ++index;
    }
}

void Reader::defaults(Key key, const Visit& visit) {
    const Json* json = find(key);
    if (json == nullptr) return;
    Scope scope = scope_;
    scope.partial = true;
    read(*json, at(key), scope, visit);
}

}  // namespace speedrun

#include "config/schema.h"

#include "config/notation.h"
#include "config/sections.h"

namespace speedrun {
namespace {

Json reference(const char* name) {
    return {{"$ref", std::string("#/$defs/") + name}};
}

Json either(Json a, Json b) {
    return {{"anyOf", Json::array({std::move(a), std::move(b)})}};
}

Json array_of(Json items, Count count) {
    return {{"type", "array"}, {"items", std::move(items)}, {"minItems", count.min}, {"maxItems", count.max}};
}

Json integer_schema(IntRange range) {
    return {{"type", "integer"}, {"minimum", range.min}, {"maximum", range.max}};
}

Json number_schema(NumberRange range) {
    Json schema{{"type", "number"}};
    if (range.min != std::numeric_limits<double>::lowest())
        schema[range.min_allowed ? "minimum" : "exclusiveMinimum"] = range.min;
    if (range.max != std::numeric_limits<double>::max())
        schema[range.max_allowed ? "maximum" : "exclusiveMaximum"] = range.max;
    return schema;
}

class Schema final : public Fields {
  public:
    static Json of(const Visit& visit) {
        Schema schema;
        visit(schema);
        return {{"type", "object"},
                {"properties", std::move(schema.properties_)},
                {"additionalProperties", false}};
    }

    bool describes() const override { return true; }
    void integer(Key key, int64_t&, IntRange range) override { add(key, integer_schema(range)); }
    void seed(Key key, uint64_t&) override {
        add(key, {{"type", "integer"}, {"minimum", 0}, {"maximum", UINT64_MAX}});
    }
    void number(Key key, double&, NumberRange range) override { add(key, number_schema(range)); }
    void boolean(Key key, bool&) override { add(key, {{"type", "boolean"}}); }
    void text(Key key, std::string&) override { add(key, {{"type", "string"}, {"minLength", 1}}); }
    void pick(Key key, size_t&, std::span<const char* const> names) override {
        add(key, {{"enum", std::vector<std::string>(names.begin(), names.end())}});
    }
    void layers(Key key, std::vector<int64_t>&) override {
        add(key, either(array_of(integer_schema({0, max_layer}), {1, 1024}), {{"const", "all"}}));
    }
    void texts(Key key, std::vector<std::string>&) override {
        add(key, array_of({{"type", "string"}, {"minLength", 1}}, {1, 1024}));
    }
    void numbers(Key key, std::vector<double>&, NumberRange range, Count count) override {
        Json list = array_of(number_schema(range), count);
        add(key, count.min == 1 ? either(number_schema(range), std::move(list)) : std::move(list));
    }
    void dims(Key key, std::vector<int64_t>&, Count rank) override {
        add(key, array_of(reference("size"), rank));
    }
    void init(Key key, std::vector<Init>&) override {
        add(key, either(reference("init"), array_of(reference("init"), {1, 4096})));
    }
    void weight(Key key, WeightRef&) override { add(key, reference("weight")); }
    void coefficient(Key key, std::optional<Coefficient>&) override { add(key, reference("coefficient")); }
    void mix(Key key, std::vector<MixTerm>&) override { add(key, reference("mix")); }
    void object(Key key, const Visit& visit) override { add(key, of(visit)); }
    void nullable(Key key, bool&, const Visit& visit) override { add(key, of(visit)); }
    void list(Key key, size_t, const VisitItem& visit) override {
        add(key, array_of(of([&](Fields& item) { visit(item, 0); }), {1, 1024}));
    }
    void named(Key key, std::span<const std::string>, const VisitNamed& visit) override {
        // null takes a name out of what the file extends
        Json member = of([&](Fields& item) { visit(item, 0, "name"); });
        add(key, {{"type", "object"},
                  {"propertyNames", {{"pattern", "^[A-Za-z_][A-Za-z0-9_]{0,99}$"}}},
                  {"additionalProperties", either(std::move(member), {{"type", "null"}})}});
    }
    void defaults(Key key, const Visit& visit) override { add(key, of(visit)); }

  private:
    void add(const Key& key, Json schema) {
        Json property{{"description", key.about}};
        if (key.required) {
            property.update(schema);
        } else {
            property.update(either(std::move(schema), {{"type", "null"}}));
        }
        properties_[key.name] = std::move(property);
    }

    Json properties_ = Json::object();
};

Json definitions() {
    const Json size = either({{"type", "integer"}, {"minimum", 1}, {"maximum", int64_t{1} << 40}},
                             {{"type", "string"}, {"pattern", dim_pattern}});
    const Json coefficient{
        {"description", coefficient_allowed}, {"type", {"number", "string"}}, {"minLength", 1}};
    const Json weight{{"description", weight_allowed}, {"type", "string"}, {"minLength", 1}};
    const Json term{{"type", "array"},
                    {"prefixItems", {reference("coefficient"), {{"type", "string"}}}},
                    {"minItems", 2},
                    {"maxItems", 2}};
    const Json deviation{{"type", "number"}, {"exclusiveMinimum", 0.0}, {"maximum", 1e30}};
    const Json constant{{"type", "number"}, {"minimum", -1e30}, {"maximum", 1e30}};
    const Json null{{"type", "null"}};
    const Json drawn{{"type", "object"},
                     {"properties",
                      {{"constant", either(constant, null)},
                       {"normal", either(deviation, null)},
                       {"normal_per_sqrt_dim", either(deviation, null)},
                       {"uniform", either(deviation, null)},
                       {"uniform_per_sqrt_dim", either(deviation, null)}}},
                     {"minProperties", 1},
                     {"additionalProperties", false}};
    const Json init = either({{"enum", {"zeros", "random_sign"}}}, drawn);
    return {{"size", size},
            {"weight", weight},
            {"coefficient", coefficient},
            {"mix", array_of(term, {1, 64})},
            {"init", init}};
}

Json build() {
    Config scratch;
    Json root = Schema::of([&](Fields& fields) { visit_config(fields, scratch); });
    Json properties{
        {"$schema", {{"description", "this schema, for editors"}, {"type", "string"}}},
        {"extends",
         {{"description", "a config, relative to this file, that this one is laid over"},
          {"type", "string"},
          {"minLength", 1}}},
        {"why",
         {{"description", "what this config is for; says nothing to the program"}, {"type", "string"}}}};
    properties.update(root["properties"]);
    return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
            {"title", "A run of speedrun"},
            {"type", "object"},
            {"properties", std::move(properties)},
            {"additionalProperties", false},
            {"$defs", definitions()}};
}

}  // namespace

const Json& config_schema() {
    static const Json schema = build();
    return schema;
}

}  // namespace speedrun

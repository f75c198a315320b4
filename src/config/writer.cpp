#include "config/writer.h"

#include "config/notation.h"
#include "config/sections.h"

namespace speedrun {
namespace {

Json init_json(const Init& init) {
    switch (init.kind) {
        case Init::Kind::zeros:
            return "zeros";
        case Init::Kind::constant:
            return {{"constant", init.value}};
        case Init::Kind::normal:
            return {{"normal", init.value}};
        case Init::Kind::uniform:
            return {{"uniform", init.value}};
        case Init::Kind::random_sign:
            return "random_sign";
    }
    return {};
}

class Writer final : public Fields {
  public:
    Writer(Json& object, const ModelConfig& model) : object_(object), model_(model) {
        object_ = Json::object();
    }

    void integer(Key key, int64_t& value, IntRange) override { object_[key.name] = value; }
    void seed(Key key, uint64_t& value) override { object_[key.name] = value; }
    void number(Key key, double& value, NumberRange) override { object_[key.name] = value; }
    void boolean(Key key, bool& value) override { object_[key.name] = value; }
    void text(Key key, std::string& value) override {
        if (!value.empty()) object_[key.name] = value;
    }
    void pick(Key key, size_t& index, std::span<const char* const> names) override {
        object_[key.name] = names[index];
    }
    void layers(Key key, std::vector<int64_t>& values) override {
        if (!values.empty()) object_[key.name] = values;
    }
    void texts(Key key, std::vector<std::string>& values) override {
        if (!values.empty()) object_[key.name] = values;
    }
    void numbers(Key key, std::vector<double>& values, NumberRange, Count) override {
        if (values.empty() && !key.required) return;
        if (values.size() == 1) {
            object_[key.name] = values[0];
        } else {
            object_[key.name] = values;
        }
    }
    void dims(Key key, std::vector<int64_t>& values, Count) override {
        if (key.required || !values.empty()) object_[key.name] = values;
    }
    void init(Key key, std::vector<Init>& values) override {
        Json list = Json::array();
        for (const Init& value : values) list.push_back(init_json(value));
        object_[key.name] = list.size() == 1 ? list[0] : list;
    }
    void weight(Key key, WeightRef& value) override {
        if (!value.param.empty()) object_[key.name] = format_weight(value, model_);
    }
    void coefficient(Key key, std::optional<Coefficient>& value) override {
        object_[key.name] = value ? format_coefficient(*value, model_) : Json();
    }
    void mix(Key key, std::vector<MixTerm>& terms) override {
        if (terms.empty()) return;
        Json list = Json::array();
        for (const MixTerm& term : terms)
            list.push_back(Json::array({format_coefficient(term.coefficient, model_), term.source}));
        object_[key.name] = list;
    }
    void object(Key key, const Visit& visit) override { write(object_[key.name], visit); }
    void nullable(Key key, bool& present, const Visit& visit) override {
        Json& value = object_[key.name];
        if (present) write(value, visit);
    }
    void list(Key key, size_t size, const VisitItem& visit) override {
        if (size == 0 && !key.required) return;
        Json list = Json::array();
        for (size_t i = 0; i < size; ++i) write(list.emplace_back(), [&](Fields& item) { visit(item, i); });
        object_[key.name] = list;
    }
    void named(Key key, std::span<const std::string> names, const VisitNamed& visit) override {
        if (names.empty() && !key.required) return;
        Json members = Json::object();
        for (size_t i = 0; i < names.size(); ++i)
            write(members[names[i]], [&](Fields& item) { visit(item, i, names[i]); });
        object_[key.name] = members;
    }
    void defaults(Key, const Visit&) override {}  // already in every layer

  private:
    void write(Json& place, const Visit& visit) {
        Writer inner(place, model_);
        visit(inner);
    }

    Json& object_;
    const ModelConfig& model_;
};

}  // namespace

Json write_config(const Config& config) {
    Config copy = config;  // visiting wants mutable fields
    Json json;
    Writer writer(json, copy.model);
    visit_config(writer, copy);
    return json;
}

}  // namespace speedrun

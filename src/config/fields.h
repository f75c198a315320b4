#pragma once
// One description of the config (visit() in sections.h) serves three visitors: a reader that fills the
// structs from JSON, a writer that prints them, and the JSON Schema.
#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"

namespace speedrun {

struct Key {
    const char* name;
    const char* about;     // one sentence, for editors
    bool required = true;  // otherwise the struct's own default holds where the key is absent or null
};

inline constexpr bool optional_key = false;

struct IntRange {
    int64_t min = 0;
    int64_t max =
        int64_t{1} << 40;  // of anything countable; keeps products of a few of them away from overflow
};

inline constexpr int64_t max_layer = 1023;  // an index

struct NumberRange {
    double min = 0, max = std::numeric_limits<double>::max();
    bool min_allowed = true, max_allowed = true;
};

struct Count {
    size_t min = 0, max = 64;
};

class Fields {
  public:
    using Visit = std::function<void(Fields&)>;
    using VisitItem = std::function<void(Fields&, size_t index)>;
    using VisitNamed = std::function<void(Fields&, size_t index, const std::string& name)>;

    virtual ~Fields() = default;

    // True where no values are at hand and every key is to be shown, whatever other keys say.
    virtual bool describes() const { return false; }
    // All parameters have been visited, and what comes refers to them.
    virtual void params_complete() {}
    // From here on "i" in coefficients is `index`.
    virtual void inside_layer(int64_t) {}

    virtual void integer(Key key, int64_t& value, IntRange range) = 0;
    virtual void seed(Key key, uint64_t& value) = 0;
    virtual void number(Key key, double& value, NumberRange range) = 0;
    virtual void boolean(Key key, bool& value) = 0;
    virtual void text(Key key, std::string& value) = 0;  // not empty where given
    virtual void pick(Key key, size_t& index, std::span<const char* const> names) = 0;
    // Indices of layers, or "all".
    virtual void layers(Key key, std::vector<int64_t>& values) = 0;
    virtual void texts(Key key, std::vector<std::string>& values) = 0;
    // One number alone may stand for a list of one.
    virtual void numbers(Key key, std::vector<double>& values, NumberRange range, Count count) = 0;
    // Sizes: numbers, "d_model" or "4*d_model".
    virtual void dims(Key key, std::vector<int64_t>& values, Count rank) = 0;
    virtual void init(Key key, std::vector<Init>& values) = 0;
    // A part of a parameter: "mlp_fc", "mlp_bank[i,0]".
    virtual void weight(Key key, WeightRef& value) = 0;
    virtual void coefficient(Key key, std::optional<Coefficient>& value) = 0;
    virtual void mix(Key key, std::vector<MixTerm>& terms) = 0;

    virtual void object(Key key, const Visit& visit) = 0;
    virtual void nullable(Key key, bool& present, const Visit& visit) = 0;
    virtual void list(Key key, size_t size, const VisitItem& visit) = 0;
    virtual void named(Key key, std::span<const std::string> names, const VisitNamed& visit) = 0;
    // An object whose keys are all optional and which only serves others to start from.
    virtual void defaults(Key key, const Visit& visit) = 0;

    template <typename Enum, size_t n>
    void choice(Key key, Enum& value, const std::array<const char*, n>& names) {
        auto index = static_cast<size_t>(value);
        pick(key, index, names);
        value = static_cast<Enum>(index);
    }

    template <typename T, typename VisitT>
    void maybe(Key key, std::optional<T>& value, VisitT visit) {
        bool present = value.has_value();
        nullable(key, present, [&](Fields& fields) {
            if (!value) value.emplace();
            visit(fields, *value);
        });
        if (!present) value.reset();
    }

    template <typename T, typename VisitT>
    void objects(Key key, std::vector<T>& values, VisitT visit) {
        list(key, values.size(), [&](Fields& fields, size_t index) {
            if (index == values.size()) values.emplace_back();
            visit(fields, values[index]);
        });
    }

    // An object of objects; the key of each is stored in its member `name`.
    template <typename T, typename VisitT>
    void named_objects(Key key, std::vector<T>& values, std::string T::*name, VisitT visit) {
        std::vector<std::string> names;
        for (const T& value : values) names.push_back(value.*name);
        named(key, names, [&](Fields& fields, size_t index, const std::string& own_name) {
            if (index == values.size()) values.emplace_back();
            values[index].*name = own_name;
            visit(fields, values[index]);
        });
    }
};

}  // namespace speedrun

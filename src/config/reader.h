#pragma once
// Strict typed reading: unknown keys, wrong types and values out of range are errors with their JSON path.
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "config/fields.h"
#include "config/notation.h"
#include "config/origins.h"
#include "config/validate.h"
#include "util/json_document.h"

namespace speedrun {

// What reading one value may depend on.
struct Scope {
    const Report* report = nullptr;
    const ModelConfig* model = nullptr;  // filled as far as it has been read
    std::optional<int64_t> layer;        // inside a layer: its index
    bool partial = false;                // required keys may be absent (layer_defaults)
};

class Reader final : public Fields {
  public:
    // Reads the members of `object` at `path`, then rejects those that nobody asked for.
    static void read(const Json& object, const std::string& path, Scope scope, const Visit& visit);

    void params_complete() override { validate_params(*scope_.model, *scope_.report); }
    void inside_layer(int64_t index) override { scope_.layer = index; }
    void integer(Key key, int64_t& value, IntRange range) override;
    void seed(Key key, uint64_t& value) override;
    void number(Key key, double& value, NumberRange range) override;
    void boolean(Key key, bool& value) override;
    void text(Key key, std::string& value) override;
    void pick(Key key, size_t& index, std::span<const char* const> names) override;
    void layers(Key key, std::vector<int64_t>& values) override;
    void texts(Key key, std::vector<std::string>& values) override;
    void numbers(Key key, std::vector<double>& values, NumberRange range, Count count) override;
    void dims(Key key, std::vector<int64_t>& values, Count rank) override;
    void init(Key key, std::vector<Init>& values) override;
    void weight(Key key, WeightRef& value) override;
    void coefficient(Key key, std::optional<Coefficient>& value) override;
    void mix(Key key, std::vector<MixTerm>& terms) override;
    void object(Key key, const Visit& visit) override;
    void nullable(Key key, bool& present, const Visit& visit) override;
    void list(Key key, size_t size, const VisitItem& visit) override;
    void named(Key key, std::span<const std::string> names, const VisitNamed& visit) override;
    void defaults(Key key, const Visit& visit) override;

  private:
    Reader(const Json& object, const std::string& path, Scope scope)
        : object_(object), path_(path), scope_(scope) {}

    const Json* find(const Key& key);  // nullptr: take the default
    const Json* find_array(const Key& key, Count count, const std::string& of);
    std::string at(const Key& key) const { return join_path(path_, std::string(key.name)); }
    [[noreturn]] void fail_type(const std::string& path, const Json& value, const std::string& allowed) const;
    int64_t to_integer(const std::string& path, const Json& value, IntRange range) const;
    double to_number(const std::string& path, const Json& value, NumberRange range) const;
    Init to_init(const std::string& path, const Json& value) const;
    template <typename T>
    T notation(const std::string& path, const Json& value, const std::function<T()>& parse) const;
    NotationScope names() const { return {*scope_.model, scope_.layer}; }
    void finish() const;

    const Json& object_;
    std::string path_;
    Scope scope_;
    std::set<std::string, std::less<>> asked_;
};

}  // namespace speedrun

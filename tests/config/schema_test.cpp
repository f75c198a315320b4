// configs/speedrun.schema.json says what the parser does.
#include "config/schema.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "config/config_testing.h"
#include "config/fields.h"
#include "config/origins.h"
#include "config/sections.h"

namespace speedrun {
namespace {

const std::filesystem::path schema_file = source_folder / "configs/speedrun.schema.json";

TEST(Schema, FileIsUpToDate) {
    std::ifstream in(schema_file);
    std::stringstream text;
    text << in.rdbuf();
    const std::string expected = pretty_json(config_schema()) + "\n";
    if (text.str() == expected) return;
    const auto fresh = std::filesystem::temp_directory_path() / "speedrun.schema.json";
    std::ofstream(fresh) << expected;
    ADD_FAILURE() << "copy " << fresh << " to " << schema_file;
}

// The part of JSON Schema that the file uses.
class Validator {
  public:
    explicit Validator(const Json& root) : root_(root) {}
    bool accepts(const Json& value) const { return accepts(root_, value); }

  private:
    bool accepts(const Json& schema, const Json& value) const {
        for (const auto& [keyword, argument] : schema.items())
            if (!accepts(schema, keyword, argument, value)) return false;
        return true;
    }

    bool accepts(const Json& schema, const std::string& keyword, const Json& argument,
                 const Json& value) const {
        if (keyword == "description" || keyword == "title" || keyword == "$schema" || keyword == "$defs")
            return true;
        if (keyword == "$ref")
            return accepts(root_.at(Json::json_pointer(argument.get<std::string>().substr(1))), value);
        if (keyword == "type" && argument.is_array())
            return std::ranges::any_of(argument, [&](const Json& type) { return has_type(type, value); });
        if (keyword == "type") return has_type(argument, value);
        if (keyword == "const") return value == argument;
        if (keyword == "enum" || keyword == "anyOf")
            return std::any_of(argument.begin(), argument.end(), [&](const Json& choice) {
                return keyword == "enum" ? choice == value : accepts(choice, value);
            });
        if (value.is_number() && keyword == "minimum") return value >= argument;
        if (value.is_number() && keyword == "maximum") return value <= argument;
        if (value.is_number() && keyword == "exclusiveMinimum") return value > argument;
        if (value.is_number() && keyword == "exclusiveMaximum") return value < argument;
        if (value.is_string() && keyword == "minLength") return value.get<std::string>().size() >= argument;
        if (value.is_string() && keyword == "pattern") return matches(argument, value);
        if (value.is_array()) return accepts_array(keyword, argument, value);
        if (value.is_object()) return accepts_object(schema, keyword, argument, value);
        return true;  // a keyword for another type of value
    }

    static bool matches(const std::string& pattern, const std::string& text) {
        static std::map<std::string, std::regex> compiled;  // building one takes far longer than using it
        const auto known = compiled.try_emplace(pattern, pattern).first;
        return std::regex_search(text, known->second);
    }

    static bool has_type(const std::string& type, const Json& value) {
        if (type == "integer")
            return value.is_number_integer() ||
                   (value.is_number() && value.get<double>() == std::trunc(value.get<double>()));
        return (type == "number" && value.is_number()) || type == value.type_name();
    }

    bool accepts_array(const std::string& keyword, const Json& argument, const Json& value) const {
        if (keyword == "minItems") return value.size() >= argument;
        if (keyword == "maxItems") return value.size() <= argument;
        if (keyword == "items")
            return std::all_of(value.begin(), value.end(),
                               [&](const Json& item) { return accepts(argument, item); });
        if (keyword == "prefixItems")
            for (size_t i = 0; i < std::min(value.size(), argument.size()); ++i)
                if (!accepts(argument[i], value[i])) return false;
        return true;
    }

    bool accepts_object(const Json& schema, const std::string& keyword, const Json& argument,
                        const Json& value) const {
        if (keyword == "minProperties") return value.size() >= argument;
        for (const auto& [key, member] : value.items()) {
            const bool known = schema.contains("properties") && schema["properties"].contains(key);
            if (keyword == "properties" && known && !accepts(argument[key], member)) return false;
            if (keyword == "propertyNames" && !accepts(argument, key)) return false;
            if (keyword == "additionalProperties" && !known &&
                !(argument.is_object() && accepts(argument, member)))
                return false;
        }
        return true;
    }

    const Json& root_;
};

// Paths of the keys in the schema; "*" stands for a name, "[]" for an entry.
void schema_paths(const Json& schema, const std::string& path, std::set<std::string>& paths) {
    if (schema.contains("anyOf"))
        for (const Json& choice : schema["anyOf"]) schema_paths(choice, path, paths);
    if (schema.contains("properties"))
        for (const auto& [key, member] : schema["properties"].items()) {
            paths.insert(join_path(path, key));
            schema_paths(member, join_path(path, key), paths);
        }
    if (schema.contains("items")) schema_paths(schema["items"], path + "[]", paths);
    if (schema.contains("additionalProperties") && schema["additionalProperties"].is_object())
        schema_paths(schema["additionalProperties"], path + ".*", paths);
}

// Paths of the keys that the table in sections.h asks for.
class TablePaths final : public Fields {
  public:
    TablePaths(std::string path, std::set<std::string>& paths) : path_(std::move(path)), paths_(paths) {}
    bool describes() const override { return true; }
    void integer(Key key, int64_t&, IntRange) override { add(key); }
    void seed(Key key, uint64_t&) override { add(key); }
    void number(Key key, double&, NumberRange) override { add(key); }
    void boolean(Key key, bool&) override { add(key); }
    void text(Key key, std::string&) override { add(key); }
    void pick(Key key, size_t&, std::span<const char* const>) override { add(key); }
    void layers(Key key, std::vector<int64_t>&) override { add(key); }
    void texts(Key key, std::vector<std::string>&) override { add(key); }
    void numbers(Key key, std::vector<double>&, NumberRange, Count) override { add(key); }
    void dims(Key key, std::vector<int64_t>&, Count) override { add(key); }
    void init(Key key, std::vector<Init>&) override { add(key); }
    void weight(Key key, WeightRef&) override { add(key); }
    void coefficient(Key key, std::optional<Coefficient>&) override { add(key); }
    void mix(Key key, std::vector<MixTerm>&) override { add(key); }
    void object(Key key, const Visit& visit) override { inside(key, "", visit); }
    void nullable(Key key, bool&, const Visit& visit) override { inside(key, "", visit); }
    void defaults(Key key, const Visit& visit) override { inside(key, "", visit); }
    void list(Key key, size_t, const VisitItem& visit) override {
        inside(key, "[]", [&](Fields& fields) { visit(fields, 0); });
    }
    void named(Key key, std::span<const std::string>, const VisitNamed& visit) override {
        inside(key, ".*", [&](Fields& fields) { visit(fields, 0, "name"); });
    }

  private:
    void add(const Key& key) { paths_.insert(join_path(path_, std::string(key.name))); }
    void inside(const Key& key, const std::string& suffix, const Visit& visit) {
        add(key);
        TablePaths inner(join_path(path_, std::string(key.name)) + suffix, paths_);
        visit(inner);
    }

    std::string path_;
    std::set<std::string>& paths_;
};

TEST(Schema, HasTheParsersKeysAndNoOthers) {
    std::set<std::string> in_schema, in_table{"$schema", "extends", "why"};  // only files have these
    schema_paths(read_json_file(schema_file), "", in_schema);
    Config scratch;
    TablePaths table("", in_table);
    visit_config(table, scratch);
    // An initialiser's keys are notation, written out in $defs only.
    EXPECT_EQ(in_schema, in_table);
    EXPECT_GT(in_schema.size(), 120u);
    EXPECT_TRUE(in_schema.contains("model.params.*.slices.*.at"));
    EXPECT_TRUE(in_schema.contains("model.layers[].attn.out_gate"));
}

TEST(Schema, AcceptsTheDeliveredFilesAndTheirResolvedForms) {
    const Json schema = read_json_file(schema_file);
    const Validator validator(schema);
    for (const auto& file : {record_42, record_43, quickstart, golden_tiny}) {
        EXPECT_TRUE(validator.accepts(read_json_file(file))) << file;
        EXPECT_TRUE(validator.accepts(parse_json(load(file).resolved_json, "resolved"))) << file;
    }
}

// The path with "*" for names: all of one kind are checked by one of them.
std::string kind_of(const std::string& path) {
    static const std::regex names("(params|slices)\\.[a-z_]+");
    return std::regex_replace(path, names, "$1.*");
}

void member_paths(const Json& value, const std::string& path, std::vector<std::string>& paths) {
    if (value.is_object())
        for (const auto& [key, member] : value.items()) {
            paths.push_back(join_path(path, key));
            member_paths(member, join_path(path, key), paths);
        }
    if (value.is_array())
        for (size_t i = 0; i < std::min<size_t>(value.size(), 2);
             ++i) {  // further entries are of the same kind
            paths.push_back(join_path(path, i));
            member_paths(value[i], join_path(path, i), paths);
        }
}

Json::json_pointer pointer(std::string path) {
    path = std::regex_replace(path, std::regex("[.\\[]"), "/");
    return Json::json_pointer("/" + std::regex_replace(path, std::regex("\\]"), ""));
}

// Errors of the kind a schema can express, unlike those about several values at once.
bool expressible(const std::string& error) {
    for (const char* kind :
         {"wrong type", "out of range", "unknown key", "not one of the choices", "is null", "no initialiser",
          ": no coefficient", ": no size", "no dimension of that name", "no key"})
        if (error.find(kind) != std::string::npos) return true;
    return false;
}

std::string load_error(const std::filesystem::path& file, const std::string& override) {
    try {
        load(file, {override});
        return "";
    } catch (const UserError& error) {
        return error.what();
    }
}

// One path of each kind in the resolved golden config.
std::vector<std::string> paths_to_spoil(const Json& resolved) {
    std::vector<std::string> all, chosen;
    member_paths(resolved, "", all);
    std::set<std::string> seen;
    for (const std::string& path : all) {
        const bool merged_before_read = path.starts_with("model.layers") && path.ends_with(".i");
        if (!merged_before_read && seen.insert(kind_of(path)).second) chosen.push_back(path);
    }
    return chosen;
}

// Puts odd values in place of each member of a resolved config: what the parser accepts, the schema must
// accept, and what the parser rejects for its own sake, the schema must reject.
TEST(Schema, RejectsWhatTheParserRejects) {
    const Json schema = read_json_file(schema_file);
    const Validator validator(schema);
    const ConfigFiles files;
    const auto file = files.write("resolved.json", load(golden_tiny).resolved_json);
    const Json resolved = read_json_file(file);
    const auto paths = paths_to_spoil(resolved);
    ASSERT_GT(paths.size(), 100u);
    int rejected = 0;
    for (const std::string& path : paths) {
        for (const std::string text : {"null", "true", "-1", "0", "1.5", "1e30", "\"\"", "\"x\"", "[]", "{}",
                                       "[[[1]]]", "{\"unknown\": 1}"}) {
            // Required of matrix rows, meaningless in adam's: more than the schema says.
            if (path.ends_with(".matrix_view") && text == "null") continue;
            const std::string override = path + "=" + text;
            const std::string error = load_error(file, override);
            Json changed = resolved;
            changed[pointer(path)] = parse_json(text, "value");
            const bool accepted = validator.accepts(changed);
            if (error.empty()) {
                EXPECT_TRUE(accepted) << override << ": the parser accepts it, the schema does not";
            } else if (error.starts_with("--set") && expressible(error.substr(error.find("\": ") + 3))) {
                EXPECT_FALSE(accepted) << override << ": the schema accepts it; " << error;
                ++rejected;
            }
        }
    }
    EXPECT_GT(rejected, 800);
}

}  // namespace
}  // namespace speedrun

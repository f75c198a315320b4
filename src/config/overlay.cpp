#include "config/overlay.h"

#include <algorithm>
#include <vector>

#include "util/error.h"
#include "util/files.h"
#include "util/text.h"

namespace speedrun {
namespace fs = std::filesystem;

namespace {

constexpr size_t max_chain = 64;

// Paths of the files from `file` up to the one that extends nothing, each with its document.
struct Document {
    fs::path file;
    Json json;
};

fs::path parent_of(const Document& document) {
    const auto extends = document.json.find("extends");
    if (extends == document.json.end()) return {};
    if (!extends->is_string() || extends->get_ref<const std::string&>().empty())
        throw UserError(document.file.string() + ": extends: wrong type; found " + brief_json(*extends) +
                        "; allowed: the path of a config, relative to this one");
    return (document.file.parent_path() / extends->get<std::string>()).lexically_normal();
}

[[noreturn]] void fail_cycle(const std::vector<Document>& chain, const fs::path& again) {
    std::string text = chain.back().file.string() + ": extends: a cycle: ";
    for (const auto& document : chain) text += document.file.string() + " -> ";
    throw UserError(text + printable(again.string()));
}

std::vector<Document> read_chain(const fs::path& file) {
    std::vector<Document> chain;
    std::vector<fs::path> seen;
    for (fs::path next = file; !next.empty(); next = parent_of(chain.back())) {
        const fs::path canonical = files::real_path(next).value_or("");
        if (canonical.empty() && !chain.empty())
            throw UserError(chain.back().file.string() + ": extends: there is no file " +
                            printable(next.string()));
        if (std::find(seen.begin(), seen.end(), canonical) != seen.end()) fail_cycle(chain, next);
        if (chain.size() == max_chain)
            throw UserError(file.string() + ": extends: a chain of more than " + std::to_string(max_chain) +
                            " files");
        if (!chain.empty() && !files::is_file(canonical))
            throw UserError(chain.back().file.string() +
                            ": extends: is no regular file: " + printable(next.string()));
        seen.push_back(canonical);
        chain.push_back({next, read_json_file(next)});
        if (!chain.back().json.is_object())
            throw UserError(next.string() + ": top level: wrong type; found " +
                            brief_json(chain.back().json) + "; allowed: an object");
    }
    return chain;
}

// A sentence for readers of the file.
void take_why(Document& document) {
    const auto why = document.json.find("why");
    if (why == document.json.end()) return;
    if (!why->is_string())
        throw UserError(document.file.string() + ": why: wrong type; found " + brief_json(*why) +
                        "; allowed: a string");
    document.json.erase(why);
}

}  // namespace

void choose_rule(Json& section, const std::string& path, const Json& rule, Origins& origins) {
    if (path != "optimizer.matrix" || !section.is_object() || !rule.is_string()) return;
    const auto before = section.find("rule");
    if (before == section.end() || *before == rule) return;
    section = Json::object();
    origins.erase_below(path);
}

void overlay(Json& target, const std::string& path, const Json& patch, const OriginOf& origin,
             Origins& origins) {
    const bool merges = target.is_object() && patch.is_object();
    if (!merges) origins.erase_below(path);
    origins.set(path, origin(path));
    if (!patch.is_object()) {
        target = patch;
        return;
    }
    if (!merges) target = Json::object();
    if (const auto rule = patch.find("rule"); rule != patch.end()) choose_rule(target, path, *rule, origins);
    for (const auto& [key, value] : patch.items())
        overlay(target[key], join_path(path, key), value, origin, origins);
}

Json read_with_parents(const fs::path& file, Origins& origins) {
    auto chain = read_chain(file);
    Json root = Json::object();
    for (auto document = chain.rbegin(); document != chain.rend(); ++document) {
        document->json.erase("extends");
        document->json.erase("$schema");
        take_why(*document);
        const std::string where = document->file.string();
        overlay(
            root, "", document->json,
            [&](const std::string& path) {
                return Origin{where, path};
            },
            origins);
    }
    return root;
}

}  // namespace speedrun

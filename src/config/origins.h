#pragma once
// Which file a value of the resolved config was written in, and under which path there.
#include <map>
#include <span>
#include <string>

#include "util/json_document.h"

namespace speedrun {

struct Origin {
    std::string where;  // a file, or the override "--set a.b=1"
    std::string path;   // JSON path there; it differs from the resolved one where layer_defaults were merged
};

class Origins {
  public:
    void set(const std::string& path, Origin origin) { origins_[path] = std::move(origin); }
    void erase_below(const std::string& path);   // forgets what is inside `path`, not `path` itself
    Origin find(const std::string& path) const;  // that of the nearest enclosing path known
  private:
    std::map<std::string, Origin> origins_;
};

// "a.b" from "a" and "b"; "a[2]" from "a" and 2.
std::string join_path(const std::string& path, const std::string& key);
std::string join_path(const std::string& path, size_t index);

// The candidate a user most likely meant: the first that holds `name`, else the one with the fewest edits; ""
// if there are none.
std::string nearest_name(const std::string& name, std::span<const std::string> candidates);

// Throws the UserErrors of one config.
class Report {
  public:
    explicit Report(const Origins& origins) : origins_(origins) {}

    struct Details {
        std::string found, allowed, nearest;  // each is left out of the text where empty
    };
    // "WHERE: PATH: WHAT; found FOUND; allowed: ALLOWED; nearest valid name: NEAREST"
    [[noreturn]] void fail(const std::string& path, const std::string& what,
                           const Details& details = {}) const;
    // A name that is none of `allowed`; the nearest is worked out.
    [[noreturn]] void fail_name(const std::string& path, const std::string& what, const std::string& name,
                                std::span<const std::string> allowed) const;

  private:
    const Origins& origins_;
};

}  // namespace speedrun

#pragma once
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "config/notation.h"
#include "model/load_config.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {

inline const std::filesystem::path source_folder = SPEEDRUN_SOURCE_DIR;
inline const std::filesystem::path record_42 = source_folder / "configs/record_42.json";
inline const std::filesystem::path record_43 = source_folder / "configs/record_43.json";
inline const std::filesystem::path quickstart = source_folder / "configs/quickstart.json";
inline const std::filesystem::path golden_tiny = source_folder / "tests/golden/golden_tiny.json";

// "sigmoid(scalars.skip[0])"
inline std::string text_of(const Coefficient& coefficient, const Config& config) {
    const Json json = format_coefficient(coefficient, config.model);
    return json.is_string() ? json.get<std::string>() : json.dump();
}
// "1.0 x + sigmoid(scalars.skip[0]) h5"
inline std::string text_of(const std::vector<MixTerm>& mix, const Config& config) {
    std::string text;
    for (const MixTerm& term : mix)
        text += (text.empty() ? "" : " + ") + text_of(term.coefficient, config) + " " + term.source;
    return text;
}

using Overrides = std::vector<std::string>;

inline Config load(const std::filesystem::path& file, const Overrides& overrides = {}) {
    return load_config(file, overrides);
}

// The file with these overrides is refused by a UserError whose text holds every one of `parts`.
inline void expect_refused(const std::filesystem::path& file, const Overrides& overrides,
                           const std::vector<std::string>& parts) {
    SCOPED_TRACE(overrides.front());
    try {
        load(file, overrides);
        ADD_FAILURE() << "accepted";
    } catch (const UserError& error) {
        for (const std::string& part : parts)
            EXPECT_NE(std::string(error.what()).find(part), std::string::npos)
                << part << " not in: " << error.what();
    }
}

// Files of one test.
class ConfigFiles {
  public:
    std::filesystem::path write(const std::string& name, const std::string& text) const {
        std::ofstream(folder_ / name, std::ios::binary) << text;
        return folder_ / name;
    }
    // A config that extends record 43; `members` is what stands between the braces.
    std::filesystem::path child(const std::string& members) const {
        return write("child.json", "{\"extends\": \"" + record_43.string() + "\", " + members + "}");
    }
    const std::filesystem::path& path() const { return folder_.path(); }

  private:
    TemporaryFolder folder_;
};

}  // namespace speedrun

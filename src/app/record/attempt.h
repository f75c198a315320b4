#pragma once
// What an attempt and a grid of attempts have in common, from the options of `record attempt`.
#include <cxxopts.hpp>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "app/record/attempt_runner.h"

namespace speedrun {

// --name, or that of the config's file.
std::string name_of(const cxxopts::ParseResult& args);

// What the options state, with `more` overrides beside those of --set.
AttemptPlan plan_of(const cxxopts::ParseResult& args, const std::vector<std::string>& more);

// --out and --runs-dir, or records/DATE_NAME and runs/DATE_NAME of today, or of an earlier day where
// `unfinished` says that work is left in the folder.
AttemptFolders folders_of(const cxxopts::ParseResult& args,
                          const std::function<bool(const std::filesystem::path& folder)>& unfinished);

// Begins or continues the attempt of `plan` in the folders until all of its runs are made. None: interrupted.
std::optional<Attempt> complete(AttemptPlan plan, const AttemptFolders& folders,
                                const cxxopts::ParseResult& args);

// UserError where one of the plan's configs is none.
void check_configs(const AttemptPlan& plan);

// Makes the grid of `record attempt --grid`, prints its table, and returns the exit code. UserError for
// options that do not fit a grid, cells that are no config, and another grid in its folder.
int make_grid(const cxxopts::ParseResult& args);

}  // namespace speedrun

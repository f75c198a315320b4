#pragma once
#include <cxxopts.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "record/judge/groups.h"

namespace speedrun {

// `record check` and `record compare` for a track that counts steps, with the options of those verbs. They
// return the exit code.
int check_by_steps(const cxxopts::ParseResult& args, const std::vector<std::filesystem::path>& paths);
int compare_by_steps(const cxxopts::ParseResult& args, const std::vector<std::string>& paths);

// What `record check` has to say besides, on stderr; and whether there is a verdict: that of a part is none.
void tell_warnings(const Collection& runs);
bool all_read(const Collection& runs);

}  // namespace speedrun

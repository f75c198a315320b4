#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"

namespace speedrun {

// Of each id below `vocab_size` (at least as many as there are tokens) the token of its prefix: the longest
// token that its bytes begin with, and are longer than; -1 where there is none. `tokens` are the bytes of the
// first ids, each once, none empty; other ids have no prefix (record 88: build_prefix_table).
std::vector<int64_t> prefix_table(const std::vector<std::string>& tokens, int64_t vocab_size);

// The prefix table that data.prefix_table names, for the ids below model.vocab_size; empty where the config
// names none. A folder is read as load_vocabulary does. A file is a JSON list with the bytes of each id below
// data.bos_id in hexadecimal, as ["61", "6162"]. UserError for a file that is missing or malformed, a token
// that is empty or there twice, and where there are not as many tokens as ids below data.bos_id.
std::vector<int64_t> load_prefix_table(const Config& config);

}  // namespace speedrun

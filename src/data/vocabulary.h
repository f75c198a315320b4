#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace speedrun {

// The bytes of every token of a byte-level BPE in order of rank, without end-of-text: the 256 single bytes,
// then one for each merge. A token's id is its index.
//
// Read from `folder`/vocab.bpe (the merges in order) and checked against `folder`/encoder.json (token -> id,
// and
// "<|endoftext|>" -> the id after the last merge). UserError naming file, line or key, what was found and
// what is expected.
std::vector<std::string> load_vocabulary(const std::filesystem::path& folder);

}  // namespace speedrun

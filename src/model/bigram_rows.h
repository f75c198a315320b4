#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "config/model_config.h"

namespace speedrun {

// Bigram's row of each token of a packed row, in a table of `rows`. Rows run across documents.
void bigram_rows(const Bigram& bigram, int64_t rows, std::span<const int32_t> tokens,
                 std::vector<int32_t>& out);

// The row of each token in a table of `rows` signs: (token before xor token) mod rows, and 0 for the first.
void sign_rows(int64_t rows, std::span<const int32_t> tokens, std::vector<int32_t>& out);

}  // namespace speedrun

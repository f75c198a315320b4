#include "model/bigram_rows.h"

namespace speedrun {

// Unsigned arithmetic wraps as the reference's int32 does; its remainder takes the divisor's sign.
void bigram_rows(const Bigram& bigram, int64_t rows, std::span<const int32_t> tokens,
                 std::vector<int32_t>& out) {
    const auto modulus = static_cast<int32_t>(rows - 1);
    const auto cur = static_cast<uint32_t>(bigram.mul_cur), prev = static_cast<uint32_t>(bigram.mul_prev);
    out.resize(tokens.size());
    if (tokens.empty()) return;
    out[0] = modulus;
    const bool overwritten = bigram.previous_of_row_1 == Bigram::PreviousOfRow1::row_0;
    for (size_t t = 1; t < tokens.size(); ++t) {
        // The reference overwrites the tokens in place, so that the second row sees the first row's number.
        const int32_t before = t == 1 && overwritten ? modulus : tokens[t - 1];
        const auto mixed = static_cast<int32_t>((cur * static_cast<uint32_t>(tokens[t])) ^
                                                (prev * static_cast<uint32_t>(before)));
        const int32_t rest = mixed % modulus;
        out[t] = rest < 0 ? rest + modulus : rest;
    }
}

void sign_rows(int64_t rows, std::span<const int32_t> tokens, std::vector<int32_t>& out) {
    out.assign(tokens.size(), 0);
    for (size_t t = 1; t < tokens.size(); ++t)
        out[t] = (tokens[t - 1] ^ tokens[t]) % static_cast<int32_t>(rows);
}

}  // namespace speedrun

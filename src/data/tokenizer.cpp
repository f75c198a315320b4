#include "data/tokenizer.h"

#include <fmt/core.h>
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>
#include <queue>

#include "data/text_pieces.h"
#include "data/vocabulary.h"
#include "util/error.h"

namespace speedrun {
namespace {

// Pieces up to this many bytes are merged by scanning for the best pair, longer ones with a heap: a scan is
// quadratic.
constexpr size_t kScanBytes = 96;

template <typename T>
uint64_t load(const char* p) {
    T value;
    std::memcpy(&value, p, sizeof(T));
    return value;
}

// Reads the bytes as few overlapping words; the multiplications are those of wyhash.
uint32_t hash_bytes(std::string_view s) {
    const char* p = s.data();
    const size_t n = s.size();
    uint64_t a = 0, b = 0;
    if (n >= 8) {
        for (size_t i = 8; i < n - 8 + 1 && n > 16; i += 8)
            a = (a ^ load<uint64_t>(p + i)) * 0x9E3779B97F4A7C15u;
        a ^= load<uint64_t>(p);
        b = load<uint64_t>(p + n - 8);
    } else if (n >= 4) {
        a = load<uint32_t>(p);
        b = load<uint32_t>(p + n - 4);
    } else {
        a = static_cast<unsigned char>(p[0]) | uint64_t{static_cast<unsigned char>(p[n / 2])} << 8 |
            uint64_t{static_cast<unsigned char>(p[n - 1])} << 16;
    }
    uint64_t h = (a ^ 0xA0761D6478BD642Fu ^ n) * 0xE7037ED1A0B428DBu;
    h = (h ^ (h >> 32) ^ b) * 0x8EBC6AF09C88C6E3u;
    return static_cast<uint32_t>(h >> 32);
}

}  // namespace

Tokenizer::Tokenizer(const std::filesystem::path& folder) {
    for (const std::string& token : load_vocabulary(folder)) {
        offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
        bytes_ += token;
        longest_ = std::max(longest_, token.size());
    }
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
    build_table();
    bytes_ += "<|endoftext|>";
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
}

void Tokenizer::build_table() {
    const size_t count = offsets_.size() - 1;
    table_.resize(std::bit_ceil(2 * count));
    for (Rank rank = 0; rank < count; ++rank) {
        const uint32_t hash = hash_bytes(token_bytes(rank));
        size_t at = hash & (table_.size() - 1);
        while (table_[at].rank != kNone) at = (at + 1) & (table_.size() - 1);
        table_[at] = {hash, rank};
    }
}

Tokenizer::Rank Tokenizer::find(std::string_view bytes) const {
    if (bytes.size() > longest_) return kNone;
    const uint32_t hash = hash_bytes(bytes);
    for (size_t at = hash & (table_.size() - 1);; at = (at + 1) & (table_.size() - 1)) {
        const Slot& slot = table_[at];
        if (slot.rank == kNone) return kNone;
        const uint32_t begin = offsets_[slot.rank];
        if (slot.hash == hash && offsets_[slot.rank + 1] - begin == bytes.size() &&
            std::memcmp(bytes_.data() + begin, bytes.data(), bytes.size()) == 0) {
            return slot.rank;
        }
    }
}

void Tokenizer::encode(std::string_view text, std::vector<uint16_t>& out) const {
    for (size_t at = 0; at < text.size();) {
        const size_t end = piece_end(text, at, classes_);
        const std::string_view piece = text.substr(at, end - at);
        if (const Rank rank = find(piece); rank != kNone) {
            out.push_back(static_cast<uint16_t>(rank));
        } else if (piece.size() <= kScanBytes) {
            merge(piece, out);
        } else {
            merge_long(piece, out);
        }
        at = end;
    }
}

std::vector<uint16_t> Tokenizer::encode(std::string_view text) const {
    std::vector<uint16_t> out;
    encode(text, out);
    return out;
}

// Both merge the adjacent pair whose bytes together are the token of lowest rank, the leftmost of equals,
// until no pair is a token.
void Tokenizer::merge(std::string_view piece, std::vector<uint16_t>& out) const {
    std::array<uint32_t, kScanBytes + 1> start;  // of each part, and the end
    std::array<Rank, kScanBytes> rank;           // of each part joined with the next
    size_t parts = piece.size();
    for (size_t i = 0; i <= parts; ++i) start[i] = static_cast<uint32_t>(i);
    const auto joined = [&](size_t i) {
        return i + 2 <= parts ? find(piece.substr(start[i], start[i + 2] - start[i])) : kNone;
    };
    for (size_t i = 0; i < parts; ++i) rank[i] = joined(i);
    while (true) {
        const auto best =
            static_cast<size_t>(std::min_element(rank.begin(), rank.begin() + parts) - rank.begin());
        if (rank[best] == kNone) break;
        std::copy(start.begin() + best + 2, start.begin() + parts + 1, start.begin() + best + 1);
        std::copy(rank.begin() + best + 1, rank.begin() + parts, rank.begin() + best);
        --parts;
        rank[best] = joined(best);
        if (best > 0) rank[best - 1] = joined(best - 1);
    }
    for (size_t i = 0; i < parts; ++i) {
        out.push_back(static_cast<uint16_t>(find(piece.substr(start[i], start[i + 1] - start[i]))));
    }
}

struct Tokenizer::Part {
    size_t start, end;      // bytes of the piece
    size_t previous, next;  // indices of the neighbours
    Rank rank;              // joined with the next one
    bool alive;
};

void Tokenizer::merge_long(std::string_view piece, std::vector<uint16_t>& out) const {
    const size_t n = piece.size();
    std::vector<Part> parts(n);
    using Candidate = std::pair<Rank, size_t>;  // rank, index of the left part
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto rate = [&](size_t i) {
        Part& p = parts[i];
        p.rank = p.next < n ? find(piece.substr(p.start, parts[p.next].end - p.start)) : kNone;
        if (p.rank != kNone) queue.emplace(p.rank, i);
    };
    for (size_t i = 0; i < n; ++i) parts[i] = {i, i + 1, i - 1, i + 1, kNone, true};
    for (size_t i = 0; i < n; ++i) rate(i);
    while (!queue.empty()) {
        const auto [rank, i] = queue.top();
        queue.pop();
        Part& left = parts[i];
        if (!left.alive || left.rank != rank) continue;  // an entry that a merge beside it made stale
        Part& right = parts[left.next];
        right.alive = false;
        left.end = right.end;
        left.next = right.next;
        if (left.next < n) parts[left.next].previous = i;
        rate(i);
        if (i > 0) rate(left.previous);
    }
    for (size_t i = 0; i < n; i = parts[i].next) {
        out.push_back(
            static_cast<uint16_t>(find(piece.substr(parts[i].start, parts[i].end - parts[i].start))));
    }
}

std::string_view Tokenizer::token_bytes(int64_t token) const {
    if (token < 0 || token + 1 >= static_cast<int64_t>(offsets_.size())) {
        throw UserError(
            fmt::format("token {} is not in the tokenizer's vocabulary of {}", token, vocab_size()));
    }
    const auto t = static_cast<size_t>(token);
    return std::string_view(bytes_).substr(offsets_[t], offsets_[t + 1] - offsets_[t]);
}

std::string Tokenizer::decode(std::span<const uint16_t> tokens) const {
    std::string out;
    for (const uint16_t token : tokens) out += token_bytes(token);
    return out;
}

}  // namespace speedrun

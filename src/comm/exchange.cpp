#include "comm/exchange.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "util/error.h"

namespace speedrun {
namespace {

using Clock = std::chrono::steady_clock;

// The cores belong to the arithmetic: after a moment of looking again and again, the longer a message is
// late, the longer the sleep.
void pause(Clock::duration waited) {
    using std::chrono::microseconds;
    if (waited < microseconds(40))
        std::this_thread::yield();
    else
        std::this_thread::sleep_for(
            std::clamp<Clock::duration>(waited / 8, microseconds(5), microseconds(2000)));
}

// Pieces of `piece` that `whole` makes.
int64_t pieces(int64_t whole, int64_t piece) {
    return (whole + piece - 1) / piece;
}

// Piece `k` of `whole`, empty behind its end.
template <typename Byte>
std::span<Byte> piece_of(std::span<Byte> whole, int64_t k, int64_t piece) {
    const auto from = std::min(whole.size(), static_cast<size_t>(k * piece));
    return whole.subspan(from, std::min(whole.size() - from, static_cast<size_t>(piece)));
}

// Each rank's share.
template <typename Byte>
std::vector<std::span<Byte>> split(std::span<Byte> data, int64_t item_size, std::span<const int64_t> counts) {
    std::vector<std::span<Byte>> shares;
    size_t from = 0;
    for (const int64_t count : counts) {
        shares.push_back(data.subspan(from, static_cast<size_t>(count * item_size)));
        from += shares.back().size();
    }
    check(from == data.size(), "the shares are not the whole");
    return shares;
}

template <typename Byte>
int64_t most_pieces(const std::vector<std::span<Byte>>& shares, int64_t piece) {
    int64_t most = 0;
    for (const auto share : shares) most = std::max(most, pieces(static_cast<int64_t>(share.size()), piece));
    return most;
}

}  // namespace

Exchange::Exchange(Transport& transport, const std::atomic<bool>& stop)
    : transport_(transport),
      stop_(stop),
      rank_(transport.rank()),
      size_(transport.size()),
      piece_(piece_bytes(size_)),
      staging_(static_cast<size_t>(staging_bytes(size_))) {}

// Whole elements of any type in any piece.
int64_t Exchange::piece_bytes(int64_t world_size) {
    return std::clamp<int64_t>(kStaging / (2 * world_size) / 4096 * 4096, 4096, kMaxPiece);
}

std::byte* Exchange::staging(int64_t slot, int peer) {
    return staging_.data() + (slot % 2 * size_ + peer) * piece_;
}

void Exchange::send(std::span<const std::byte> bytes, int to, int tag, Batch& batch) {
    if (bytes.empty()) return;
    batch.requests.push_back(transport_.send(bytes, to, tag));
    batch.expected.push_back(-1);
    bytes_sent_ += static_cast<int64_t>(bytes.size());
}

void Exchange::receive(std::span<std::byte> bytes, int from, int tag, Batch& batch) {
    if (bytes.empty()) return;
    batch.requests.push_back(transport_.receive(bytes, from, tag));
    batch.expected.push_back(static_cast<int64_t>(bytes.size()));
}

void Exchange::wait(Batch& batch) {
    if (batch.requests.empty()) return;
    batch.moved.resize(batch.requests.size());
    const auto began = Clock::now();
    while (!transport_.test(batch.requests, batch.moved)) {
        if (stop_) throw std::runtime_error("abandoned: this rank is ending");
        pause(Clock::now() - began);
    }
    for (size_t i = 0; i < batch.moved.size(); ++i)
        if (batch.expected[i] >= 0 && batch.moved[i] != batch.expected[i])
            throw std::runtime_error("received " + std::to_string(batch.moved[i]) + " bytes instead of " +
                                     std::to_string(batch.expected[i]) +
                                     ": the ranks are not in the same collective");
    batch = {};
}

// Two rounds are under way at a time: while the result of one is used, the next is being received.
void Exchange::rounds(int64_t count, const std::function<void(int64_t, Batch&)>& post,
                      const std::function<void(int64_t)>& done) {
    std::array<Batch, 2> batches;
    const auto batch = [&](int64_t k) -> Batch& { return batches[static_cast<size_t>(k % 2)]; };
    if (count > 0) post(0, batch(0));
    for (int64_t k = 0; k < count; ++k) {
        if (k + 1 < count) post(k + 1, batch(k + 1));
        wait(batch(k));
        done(k);
    }
}

void Exchange::reduce_scatter(std::span<std::byte> data, Element element, ReduceOp op,
                              std::span<const int64_t> counts, int tag) {
    const auto shares = split(data, element_size(element), counts);
    const auto own = shares[static_cast<size_t>(rank_)];
    const auto post = [&](int64_t k, Batch& batch) {
        const size_t bytes = piece_of(own, k, piece_).size();
        for (int d = 1; d < size_; ++d) receive({staging(k, peer(d)), bytes}, peer(d), tag, batch);
        for (int d = 1; d < size_; ++d)
            send(piece_of(shares[static_cast<size_t>(peer(d))], k, piece_), peer(d), tag, batch);
    };
    std::vector<const std::byte*> sources(static_cast<size_t>(size_));
    const auto add = [&](int64_t k) {
        const auto piece = piece_of(own, k, piece_);
        for (int r = 0; r < size_; ++r)
            sources[static_cast<size_t>(r)] = r == rank_ ? piece.data() : staging(k, r);
        combine(element, op, sources, static_cast<int64_t>(piece.size()) / element_size(element),
                piece.data());
    };
    rounds(most_pieces(shares, piece_), post, add);
}

void Exchange::all_gather(std::span<std::byte> data, int64_t item_size, std::span<const int64_t> counts,
                          int tag) {
    const auto shares = split(data, item_size, counts);
    const auto post = [&](int64_t k, Batch& batch) {
        for (int d = 1; d < size_; ++d)
            receive(piece_of(shares[static_cast<size_t>(peer(d))], k, piece_), peer(d), tag, batch);
        for (int d = 1; d < size_; ++d)
            send(piece_of(shares[static_cast<size_t>(rank_)], k, piece_), peer(d), tag, batch);
    };
    rounds(most_pieces(shares, piece_), post, [](int64_t) {});
}

void Exchange::reduce_by_all(std::span<std::byte> data, Element element, ReduceOp op, int tag) {
    Batch batch;
    std::vector<std::byte> received(data.size() * static_cast<size_t>(size_));
    std::vector<const std::byte*> sources(static_cast<size_t>(size_));
    for (int r = 0; r < size_; ++r) {
        const auto from = std::span(received).subspan(static_cast<size_t>(r) * data.size(), data.size());
        sources[static_cast<size_t>(r)] = r == rank_ ? data.data() : from.data();
        if (r != rank_) receive(from, r, tag, batch);
    }
    for (int d = 1; d < size_; ++d) send(data, peer(d), tag, batch);
    wait(batch);
    combine(element, op, sources, static_cast<int64_t>(data.size()) / element_size(element), data.data());
}

void Exchange::all_reduce(std::span<std::byte> data, Element element, ReduceOp op, int tag) {
    const auto bytes = static_cast<int64_t>(data.size());
    if (bytes <= kSmall && bytes * size_ <= kStaging) return reduce_by_all(data, element, op, tag);
    const int64_t count = bytes / element_size(element);
    std::vector<int64_t> counts(static_cast<size_t>(size_));
    for (int r = 0; r < size_; ++r)
        counts[static_cast<size_t>(r)] = count * (r + 1) / size_ - count * r / size_;
    reduce_scatter(data, element, op, counts, tag);
    all_gather(data, element_size(element), counts, tag);
}

// A binomial tree: number v (from the root on) gets its data from v without its lowest bit, and passes them
// on to v + 1, v + 2, v + 4, ... below that bit.
void Exchange::broadcast(std::span<std::byte> data, int root, int tag) {
    const int v = (rank_ - root + size_) % size_;
    const int lowest = v == 0 ? size_ : v & -v;
    const int64_t count = pieces(static_cast<int64_t>(data.size()), piece_);
    std::array<Batch, 2> sending;
    const auto post = [&](int64_t k, Batch& batch) {
        if (v != 0) receive(piece_of(data, k, piece_), (v - lowest + root) % size_, tag, batch);
    };
    const auto pass_on = [&](int64_t k) {
        Batch& batch = sending[static_cast<size_t>(k % 2)];
        wait(batch);
        for (int step = 1; step < lowest && v + step < size_; step *= 2)
            send(piece_of(data, k, piece_), (v + step + root) % size_, tag, batch);
    };
    rounds(count, post, pass_on);
    for (Batch& batch : sending) wait(batch);
}

// Two ranks may need different numbers of rounds: what one sends the other is as many pieces for both.
void Exchange::all_to_all(std::span<const std::byte> sent, std::span<const int64_t> send_counts,
                          std::span<std::byte> received, std::span<const int64_t> receive_counts,
                          int64_t item_size, int tag) {
    const auto out = split(sent, item_size, send_counts);
    const auto in = split(received, item_size, receive_counts);
    const auto own = static_cast<size_t>(rank_);
    check(out[own].size() == in[own].size(), "a rank receives of itself what it sends itself");
    std::ranges::copy(out[own], in[own].begin());
    const auto post = [&](int64_t k, Batch& batch) {
        for (int d = 1; d < size_; ++d)
            receive(piece_of(in[static_cast<size_t>(peer(d))], k, piece_), peer(d), tag, batch);
        for (int d = 1; d < size_; ++d)
            send(piece_of(out[static_cast<size_t>(peer(d))], k, piece_), peer(d), tag, batch);
    };
    rounds(std::max(most_pieces(out, piece_), most_pieces(in, piece_)), post, [](int64_t) {});
}

// In round d everybody hears from the rank 2^d before it: after the last, from all of them.
void Exchange::barrier(int tag) {
    std::array<std::byte, 1> out{}, in{};
    for (int distance = 1; distance < size_; distance *= 2) {
        Batch batch;
        receive(in, peer(size_ - distance), tag, batch);
        send(out, peer(distance), tag, batch);
        wait(batch);
    }
}

}  // namespace speedrun

#pragma once
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "comm/reduce.h"
#include "comm/transport.h"

namespace speedrun {

// The collectives of CPU ranks over a transport: each call returns when this rank's part is done. Data goes
// straight from rank to rank, in pieces, so that memory beside the tensor is bounded (kStaging) and the bytes
// sent are the fewest possible. `tag` is the same on all ranks and differs between collectives in flight.
class Exchange {
  public:
    static constexpr int64_t kStaging = int64_t{8} << 20;  // bytes
    static constexpr int64_t kMaxPiece = int64_t{512} << 10;
    // Up to here all_reduce sends the whole to everybody: (W - 1) n bytes a rank in one round, instead of
    // 2 (W - 1) / W n in two.
    static constexpr int64_t kSmall = int64_t{16} << 10;

    // Of a message at most; and of all that are under way: two rounds of one from every rank.
    static int64_t piece_bytes(int64_t world_size);
    static int64_t staging_bytes(int64_t world_size) { return 2 * world_size * piece_bytes(world_size); }

    // Waiting ends with an exception once `stop` is true.
    Exchange(Transport& transport, const std::atomic<bool>& stop);

    // `data` holds counts[0] + counts[1] + ... elements; see Communicator.
    void reduce_scatter(std::span<std::byte> data, Element element, ReduceOp op,
                        std::span<const int64_t> counts, int tag);
    void all_gather(std::span<std::byte> data, int64_t item_size, std::span<const int64_t> counts, int tag);
    void all_reduce(std::span<std::byte> data, Element element, ReduceOp op, int tag);
    void broadcast(std::span<std::byte> data, int root, int tag);
    void all_to_all(std::span<const std::byte> sent, std::span<const int64_t> send_counts,
                    std::span<std::byte> received, std::span<const int64_t> receive_counts, int64_t item_size,
                    int tag);
    void barrier(int tag);

    int64_t bytes_sent() const { return bytes_sent_; }  // from any thread

  private:
    // Messages that are waited for together.
    struct Batch {
        std::vector<uint64_t> requests;
        std::vector<int64_t> expected, moved;  // bytes; expected is -1 for a send
    };

    void send(std::span<const std::byte> bytes, int to, int tag, Batch& batch);
    void receive(std::span<std::byte> bytes, int from, int tag, Batch& batch);
    void wait(Batch& batch);
    void rounds(int64_t count, const std::function<void(int64_t, Batch&)>& post,
                const std::function<void(int64_t)>& done);
    void reduce_by_all(std::span<std::byte> data, Element element, ReduceOp op, int tag);
    std::byte* staging(int64_t slot, int peer);
    int peer(int distance) const { return (rank_ + distance) % size_; }

    Transport& transport_;
    const std::atomic<bool>& stop_;
    int rank_, size_;
    int64_t piece_;                   // bytes of a message at most
    std::vector<std::byte> staging_;  // two rounds of a piece from every rank
    std::atomic<int64_t> bytes_sent_{0};
};

}  // namespace speedrun

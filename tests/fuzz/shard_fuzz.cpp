// Any file is read as a shard or refused by a UserError; what loaders make of one is in range.
#include <algorithm>
#include <string>
#include <vector>

#include "data/loader.h"
#include "fuzz_files.h"

namespace speedrun {
namespace {

constexpr DataLayout kLayout{.vocab_size = 500, .bos_id = 499};
constexpr RowShape kRow{.tokens = 8, .cu_seqlens_entries = 6};

void check_batch(const Batch& batch) {
    check(batch.inputs.size() == 8 && batch.targets.size() == 8 && batch.cu_seqlens.size() == 6,
          "a batch of the layout's size");
    const auto token = [](int64_t t) { return t >= 0 && t < kLayout.vocab_size; };
    check(std::ranges::all_of(batch.inputs, token) && std::ranges::all_of(batch.targets, token),
          "tokens of the vocabulary");
    check(batch.cu_seqlens.front() == 0 && batch.cu_seqlens.back() == 8 &&
              std::ranges::is_sorted(batch.cu_seqlens),
          "documents in order");
}

template <typename Body>
void or_user_error(Body&& body) {
    try {
        body();
    } catch (const UserError& error) {
        check_message(error.what());
    }
}

void check_shard(std::string_view bytes) {
    static const FuzzFolder folder;
    const auto file = folder.write("shard.bin", bytes);
    or_user_error([&] {
        const Shard shard(file);
        check(shard.tokens().size() * 2 + kShardHeaderBytes == bytes.size(), "every byte is a token's");
    });
    or_user_error([&] {
        TrainLoader loader({file, file}, kLayout);
        for (int i = 0; i < 20; ++i)
            for (const Batch& batch : loader.next_step({.rows = 2, .row = kRow, .max_seq_len = 5}))
                check_batch(batch);
    });
    or_user_error([&] {
        const ValLoader loader({file}, kLayout, kRow, 16);
        for (int64_t i = 0; i < loader.size(); ++i) check_batch(loader.at(i));
    });
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::check_shard(speedrun::as_text(bytes, size));
    return 0;
}

#include "data/loader.h"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <numeric>
#include <random>

#include "data/loader_model.h"
#include "data/prefetch.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {

// Found by argument-dependent lookup in EXPECT_EQ.
static bool operator==(const Batch& a, const Batch& b) {
    return a.inputs == b.inputs && a.targets == b.targets && a.cu_seqlens == b.cu_seqlens;
}

namespace {

constexpr uint16_t kBosId = 999;
using Tokens = std::vector<uint16_t>;

// `before` tokens of no document, then documents of these lengths; every token tells where it came from.
Tokens documents(const std::vector<int64_t>& lengths, int64_t before = 0) {
    Tokens out;
    for (int64_t i = 0; i < before; ++i) out.push_back(7);
    for (const int64_t length : lengths) {
        out.push_back(kBosId);
        for (int64_t j = 1; j < length; ++j) out.push_back(static_cast<uint16_t>(out.size() % 997));
    }
    return out;
}

constexpr DataLayout kLayout{1000, kBosId};

// Steps of batch_tokens in rows of row_tokens.
StepShape step_of(int64_t row_tokens, int64_t batch_tokens, int64_t max_seq_len, int64_t entries = 64) {
    return {batch_tokens / row_tokens, {row_tokens, entries}, max_seq_len};
}

// write_shard waits for the disk; thousands of cases should not.
void write_unsynced(const std::filesystem::path& path, const Tokens& tokens) {
    std::array<int32_t, 256> header{kShardMagic, kShardVersion, static_cast<int32_t>(tokens.size())};
    std::filesystem::remove(path);  // some file systems flush a file that is truncated and written again
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(header.data()), sizeof(header));
    file.write(reinterpret_cast<const char*>(tokens.data()), static_cast<std::streamsize>(2 * tokens.size()));
}

std::vector<std::filesystem::path> write_all(const TemporaryFolder& dir, const std::vector<Tokens>& shards) {
    std::vector<std::filesystem::path> files;
    for (size_t i = 0; i < shards.size(); ++i) {
        files.push_back(dir / (std::to_string(i) + ".bin"));
        write_unsynced(files.back(), shards[i]);
    }
    return files;
}

// The loader, the prefetching loader, the dry run and the model agree until the shards are used up.
void expect_equal_to_model(const TemporaryFolder& dir, const std::vector<Tokens>& shards, int64_t row_tokens,
                           const std::vector<StepShape>& steps) {
    const auto files = write_all(dir, shards);
    LoaderModel model(shards, row_tokens, row_tokens + 2, kBosId);
    TrainLoader loader(files, kLayout);
    PrefetchingLoader prefetching(files, kLayout, steps);
    int64_t served = 0;
    for (const StepShape& shape : steps) {
        const auto expected = model.next(shape.rows, shape.max_seq_len);
        if (!expected) {
            expect_user_error([&] { loader.next_step(shape); }, {"before step " + std::to_string(served)});
            expect_user_error([&] { prefetching.next_step(); }, {"before step " + std::to_string(served)});
            break;
        }
        EXPECT_EQ(loader.next_step(shape), *expected);
        EXPECT_EQ(prefetching.next_step(), *expected);
        EXPECT_EQ(loader.position(), prefetching.position());
        ++served;
    }
    EXPECT_EQ(measure_data(files, kLayout, steps).steps_served, served);
}

std::vector<StepShape> same_steps(size_t n, StepShape shape) {
    return std::vector<StepShape>(n, shape);
}

TEST(Loader, AdversarialDocumentLengths) {
    const TemporaryFolder dir;
    const auto eight = std::vector<int64_t>(8, 9);
    const std::vector<std::vector<Tokens>> cases{
        {documents(std::vector<int64_t>(200, 1))},  // one-token documents
        {documents(std::vector<int64_t>(40, 9))},   // each exactly a row
        {documents(std::vector<int64_t>(40, 10))},  // one token too long
        {documents(std::vector<int64_t>(40, 8)),
         documents(eight)},                               // one token short: a one-token last segment
        {documents({100, 100, 3, 6, 5, 4, 1, 8, 1, 9})},  // cut at T and at max_seq_len
        {documents({9, 9, 9, 9})},                        // last document just consumed
        {documents({9, 9, 9, 9}), documents({9, 9})},     // and a shard follows
        {documents({9, 9, 9, 5}), documents({9, 9, 3}),
         documents(eight, 17)},  // ends inside a row; tokens before BOS
        {documents({3}), documents({2}),
         documents(std::vector<int64_t>(20, 9))},  // shards that serve nothing
    };
    for (const auto& shards : cases) {
        for (const int64_t max_len : {1, 4, 8, 9, 1000}) {
            for (const int64_t rows : {1, 2, 8}) {
                expect_equal_to_model(dir, shards, 8, same_steps(60, step_of(8, 8 * rows, max_len, 10)));
            }
        }
    }
}

TEST(Loader, RandomDocumentsRowsAndStages) {
    const TemporaryFolder dir;
    std::mt19937 random(43);
    const auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
    for (int trial = 0; trial < 1500; ++trial) {
        const int64_t row_tokens = 1 + below(24);
        std::vector<Tokens> shards;
        const int64_t shard_count = 1 + below(4);
        for (int64_t s = 0; s < shard_count; ++s) {
            std::vector<int64_t> lengths;
            const int64_t longest = 1 + below(40);
            for (int64_t d = 1 + below(60); d > 0; --d) lengths.push_back(1 + below(longest));
            shards.push_back(documents(lengths, below(5)));
        }
        std::vector<StepShape> steps;
        for (int i = 0; i < 30; ++i) {
            const int64_t rows = 1 + below(6);
            steps.push_back({rows, {row_tokens, row_tokens + 2}, 1 + below(30)});
        }
        expect_equal_to_model(dir, shards, row_tokens, steps);
        if (HasFailure()) FAIL() << "trial " << trial;
    }
}

TEST(Loader, SavedPositionGoesOnBitForBit) {
    const TemporaryFolder dir;
    std::vector<int64_t> lengths;
    for (int64_t i = 0; i < 300; ++i) lengths.push_back(1 + (i * 37) % 23);
    const auto files = write_all(dir, {documents(lengths), documents(lengths, 3)});
    const auto steps = same_steps(30, step_of(16, 64, 12));
    for (int64_t at = 0; at < 30; ++at) {
        TrainLoader whole(files, kLayout);
        for (int64_t i = 0; i < at; ++i) whole.next_step(steps[0]);
        TrainLoader resumed(files, kLayout);
        PrefetchingLoader prefetching(files, kLayout, steps);
        prefetching.next_step();
        resumed.seek(whole.position());
        prefetching.seek(whole.position());
        EXPECT_EQ(prefetching.position(), whole.position());
        for (int64_t i = at; i < 30; ++i) {
            const auto expected = whole.next_step(steps[0]);
            EXPECT_EQ(resumed.next_step(steps[0]), expected);
            EXPECT_EQ(prefetching.next_step(), expected);
        }
        EXPECT_EQ(resumed.position(),
                  (LoaderPosition{whole.position().shard, whole.position().document, 30}));
    }
}

TEST(Loader, PositionThatTheseShardsDoNotHave) {
    const TemporaryFolder dir;
    const auto files = write_all(dir, {documents({9, 9, 9})});
    TrainLoader loader(files, kLayout);
    expect_user_error([&] { loader.seek({1, 0, 0}); }, {"shard is 1", "0 to 0"});
    expect_user_error([&] { loader.seek({0, 4, 1}); }, {"document is 4", "0 to 3"});
    expect_user_error([&] { loader.seek({0, -1, 1}); }, {"document is -1"});
    expect_user_error([&] { loader.seek({0, 0, -1}); }, {"step is -1"});
    PrefetchingLoader prefetching(files, kLayout, same_steps(3, step_of(8, 8, 9)));
    expect_user_error([&] { prefetching.seek({0, 4, 1}); }, {"document is 4"});
    expect_user_error([&] { prefetching.next_step(); }, {"document is 4"});
    prefetching.seek({});
    EXPECT_EQ(prefetching.next_step().size(), 1u);
}

TEST(Loader, MoreDocumentsThanEntriesIsAnErrorThatSaysSo) {
    const TemporaryFolder dir;
    const auto files = write_all(dir, {documents(std::vector<int64_t>(100, 1))});
    TrainLoader fits(files, kLayout);
    // 17 documents and the end
    EXPECT_EQ(fits.next_step(step_of(16, 16, 9, 18))[0].cu_seqlens.back(), 16);
    TrainLoader loader(files, kLayout);
    expect_user_error([&] { loader.next_step(step_of(16, 16, 9, 17)); },
                      {"17 documents", "max_num_docs", "16"});
    // Of validation data 16 starts and the segment before them, found before anything is read; of training
    // data by the check of the whole schedule, which names the file and where.
    expect_user_error(
        [&] {
            ValLoader(files, kLayout, {16, 17}, 16);
        },
        {files[0].string(), "byte 1024", "17 documents", "max_num_docs allows 16"});
    const auto steps = [](int64_t entries) { return same_steps(2, step_of(16, 16, 9, entries)); };
    expect_user_error([&] { require_enough_data(files, kLayout, steps(17)); },
                      {files[0].string(), "byte 1024", "17 documents", "max_num_docs allows 16"});
    EXPECT_EQ(require_enough_data(files, kLayout, steps(18)), 1);
    EXPECT_EQ(ValLoader(files, kLayout, {16, 18}, 16).at(0).cu_seqlens.back(), 16);
}

TEST(Loader, TooLittleDataIsSaidWithHowMuchIsMissing) {
    const TemporaryFolder dir;
    const auto files =
        write_all(dir, {documents(std::vector<int64_t>(10, 9)), documents(std::vector<int64_t>(3, 9))});
    const auto steps = same_steps(10, step_of(8, 16, 9));
    EXPECT_NO_THROW(require_enough_data(files, kLayout, std::span(steps).first(6)));
    expect_user_error([&] { require_enough_data(files, kLayout, steps); },
                      {"160 tokens in 10 steps", "2 shard(s) with 117 tokens", "serve 96 in 6 steps",
                       "64 tokens are missing"});
    expect_user_error(
        [&] {
            ValLoader(files, kLayout, {8, 64}, 120);
        },
        {"val_tokens is 120", "117 tokens", "serve 112"});
}

TEST(Loader, InACircleItBeginsAgainWhereTheDataEnds) {
    const TemporaryFolder dir;
    const auto files = write_all(dir, {documents(std::vector<int64_t>(4, 9))});
    TrainLoader loader(files, kLayout);
    std::vector<std::vector<int32_t>> inputs;
    for (int i = 0; i < 6; ++i)
        inputs.push_back(loader.next_step_in_a_circle(step_of(8, 16, 9)).front().inputs);
    EXPECT_EQ(inputs[0], inputs[2]);
    EXPECT_EQ(inputs[1], inputs[3]);
    EXPECT_EQ(inputs[1], inputs[5]);
    EXPECT_NE(inputs[0], inputs[1]);
    EXPECT_EQ(loader.position(), (LoaderPosition{0, 4, 6}));
    TrainLoader plain(files, kLayout);
    plain.next_step(step_of(8, 16, 9));
    plain.next_step(step_of(8, 16, 9));
    expect_user_error([&] { plain.next_step(step_of(8, 16, 9)); }, {"training data ends before step 2"});
}

TEST(Loader, ValidationGoesOnInTheNextShard) {
    const TemporaryFolder dir;
    const auto files = write_all(dir, {documents({9}), documents({5, 30})});
    const ValLoader loader(files, kLayout, {8, 64}, 40);
    EXPECT_EQ(loader.size(), 5);
    EXPECT_EQ(loader.at(0).inputs[0], kBosId);
    EXPECT_EQ(loader.at(0).cu_seqlens[0], 0);
    EXPECT_EQ(loader.at(0).cu_seqlens[1], 0);
    EXPECT_EQ(loader.at(1).cu_seqlens[2], 5);
    EXPECT_EQ(loader.at(2).cu_seqlens[1], 8);
}

TEST(Loader, ABadShardSurfacesWhenItsTurnComes) {
    const TemporaryFolder dir;
    const auto files = write_all(dir, {documents({9, 9, 9}), Tokens(50, 3)});
    PrefetchingLoader loader(files, kLayout, same_steps(10, step_of(8, 8, 9)));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(loader.next_step().size(), 1u);
    for (int i = 0; i < 2; ++i)
        expect_user_error([&] { loader.next_step(); }, {"1.bin", "starts a document"});
}

TEST(Loader, PrefetchStopsAtAnyMoment) {
    const TemporaryFolder dir;
    const auto files =
        write_all(dir, {documents(std::vector<int64_t>(500, 9)), documents(std::vector<int64_t>(500, 9))});
    for (int steps = 0; steps < 60; ++steps) {
        PrefetchingLoader loader(files, kLayout, same_steps(100, step_of(8, 80, 9)), RowShare{},
                                 1 + steps % 3);
        for (int i = 0; i < steps; ++i) loader.next_step();
        if (steps % 2) loader.seek({1, 0, 50});
    }
}

TEST(Loader, PastTheLastStepIsABrokenInvariant) {
    const TemporaryFolder dir;
    PrefetchingLoader loader(write_all(dir, {documents({9, 9, 9})}), kLayout,
                             same_steps(1, step_of(8, 8, 9)));
    loader.next_step();
    EXPECT_THROW(loader.next_step(), InternalError);
}

// Both while pages of it are gone, and where the cut is so small that all pages are still there.
TEST(Loader, AShardThatIsCutWhileInUseIsNamed) {
    for (const uintmax_t kept : {5'000U, 40'020U}) {
        const TemporaryFolder dir;
        const auto path = dir / "shard.bin";
        write_shard(path, documents(std::vector<int64_t>(1'000, 20)));
        TrainLoader train({path}, kLayout);
        train.next_step(step_of(64, 128, 20));
        const ValLoader val({path}, kLayout, {64, 64}, 6400);
        const LoaderPosition before = train.position();
        std::filesystem::resize_file(path, kept);
        expect_user_error(
            [&] {
                for (;;) train.next_step(step_of(64, 128, 20));
            },
            {"shard.bin", "has " + std::to_string(kept) + " bytes now", "had 41024"});
        EXPECT_EQ(train.position(), before);
        expect_user_error([&] { static_cast<void>(val.at(99)); }, {"changed while in use"});
    }
}

// Tokens that count from 0.
Tokens counting(int64_t count) {
    Tokens tokens(static_cast<size_t>(count));
    std::iota(tokens.begin(), tokens.end(), uint16_t{0});
    return tokens;
}

constexpr DataLayout kStream{1000, kBosId, /*sequence_tokens=*/4};

TEST(StreamLoader, CutsRowsFromTheStreamWhereverDocumentsBegin) {
    const TemporaryFolder dir;
    TrainLoader loader(write_all(dir, {counting(40)}), kStream);
    const StepShape shape = step_of(8, 16, 4, /*entries=*/3);
    for (const int64_t first : {0, 16}) {
        const auto batches = loader.next_step(shape);
        ASSERT_EQ(batches.size(), 2U);
        for (size_t row = 0; row < 2; ++row) {
            const auto begin = static_cast<int32_t>(first + 8 * static_cast<int64_t>(row));
            EXPECT_EQ(batches[row].inputs.front(), begin);
            EXPECT_EQ(batches[row].targets.back(), begin + 8);
            EXPECT_EQ(batches[row].cu_seqlens, (std::vector<int32_t>{0, 4, 8}));
        }
    }
    EXPECT_EQ(loader.position(), (LoaderPosition{0, 32, 2}));
    expect_user_error([&] { loader.next_step(shape); }, {"training data ends before step 2"});
}

// train_gpt_simple.py goes on to the next shard where pos + batch + 1 >= len(tokens).
TEST(StreamLoader, LeavesTheLastStepOfAShardThatHasOneTokenMoreThanItsSteps) {
    const TemporaryFolder dir;
    const StepShape shape = step_of(8, 16, 4, 3);
    const auto second_shard_of = [&](int64_t tokens) {
        TrainLoader loader(write_all(dir, {counting(tokens), counting(40)}), kStream);
        loader.next_step(shape);
        loader.next_step(shape);
        return loader.position().shard;
    };
    EXPECT_EQ(second_shard_of(33), 1);
    EXPECT_EQ(second_shard_of(34), 0);
}

TEST(StreamLoader, GoesOnFromAPositionAndRefusesOneBeyondTheShard) {
    const TemporaryFolder dir;
    const auto files = write_all(dir, {counting(60)});
    TrainLoader one(files, kStream), two(files, kStream, {1, 2});
    const StepShape shape = step_of(8, 16, 4, 3);
    one.next_step(shape);
    two.seek(one.position());
    EXPECT_EQ(two.next_step(shape).front().inputs, one.next_step(shape)[1].inputs);
    expect_user_error([&] { two.seek({0, 61, 1}); }, {"document is 61", "0 to 60"});
}

TEST(StreamLoader, ValidatesInSequences) {
    const TemporaryFolder dir;
    const ValLoader loader(write_all(dir, {counting(40)}), kStream, {8, 3}, 32);
    ASSERT_EQ(loader.size(), 4);
    EXPECT_EQ(loader.at(3).inputs.front(), 24);
    EXPECT_EQ(loader.at(3).cu_seqlens, (std::vector<int32_t>{0, 4, 8}));
    expect_user_error(
        [&] {
            ValLoader(write_all(dir, {counting(40)}), kStream, {8, 2}, 32);
        },
        {"has 2 documents", "allows 1"});
}

}  // namespace
}  // namespace speedrun

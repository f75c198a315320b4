#include "record/log/log.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include "record/log/hardware.h"
#include "record/log/run_log.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

std::string read(const std::filesystem::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
}

// Lines of published logs of record 43.
TEST(LogLines, AreTheTracks) {
    EXPECT_EQ(validation_line(1960, 1960, 3.27839, 137582.0),
              "step:1960/1960 val_loss:3.2784 train_time:137582ms step_avg:70.19ms");
    EXPECT_EQ(step_line(1333, 1390, 74942.0), "step:1333/1390 train_time:74942ms step_avg:56.22ms");
    EXPECT_EQ(peak_memory_line(31689932800 + 1000000, 40550531071),
              "peak memory allocated: 30222 MiB reserved: 38671 MiB");
}

TEST(LogLines, ValidationBeforeTheFirstStepDividesByOne) {
    EXPECT_EQ(validation_line(0, 1960, 10.8258, 0.25),
              "step:0/1960 val_loss:10.8258 train_time:0ms step_avg:0.25ms");
}

TEST(LogLines, ShowALossThatIsNotANumber) {
    EXPECT_EQ(validation_line(3, 9, std::nan(""), 3), "step:3/9 val_loss:nan train_time:3ms step_avg:1.00ms");
}

TEST(TrackLog, HeaderNamesEverythingThenSteps) {
    const TemporaryFolder folder;
    TrackLog log(folder / "log.txt");
    RunDescription run;
    run.command_line = "speedrun train --config a.json";
    run.config_json = "{\"record\": 43}";
    run.config_hash = "abc";
    run.commit = "0123";
    run.build = "Release";
    run.libraries = {{"torch", "2.11.0"}};
    run.hardware = "processor: x";
    run.train_shards = {"data/a.bin", "data/b.bin"};
    run.seed = 7;
    run.world_size = 8;
    log.header(run);
    log.step(1, 2, 30);
    const std::string rule(100, '=');
    EXPECT_EQ(read(folder / "log.txt"),
              "{\"record\": 43}\n" + rule +
                  "\ncommand: speedrun train --config a.json\nconfig sha256: abc\n"
                  "commit: 0123\nbuild: Release\ntorch: 2.11.0\n"
                  "training shards: 2\n  data/a.bin\n  data/b.bin\nseed: 7\nworld size: 8\n"
                  "processor: x\n" +
                  rule + "\nstep:1/2 train_time:30ms step_avg:30.00ms\n");
}

RunDescription described() {
    RunDescription run;
    run.date = "Fri Jul 17 13:28:52 2026";
    run.command_line = "speedrun train --config a.json";
    run.config_json = "{\"record\":43,\"runtime\":{\"seed\":7}}";
    run.config_hash = std::string(64, 'a');
    run.commit = "0123abc + uncommitted changes";
    run.build = "Release, -O3 -g1, GCC 12.2.0";
    run.libraries = {{"torch", "2.11.0"}, {"glibc", "2.36"}};
    run.hardware = "processor: AMD EPYC\ncores this process may use: 2\nmemory: 24 MiB";
    run.train_shards = {"data/a.bin"};
    run.val_shards = {"data/v.bin"};
    run.seed = 18446744073709551615U;
    run.world_size = 8;
    run.threads = 2;
    return run;
}

// What is written is what is read.
TEST(TrackLog, ComesBackThroughTheParser) {
    const TemporaryFolder folder;
    const RunDescription run = described();
    const std::vector<DataShard> data = {
        {DataShard::Use::training, "data/a, 1 bytes, sha256.bin", 200001024, std::string(64, '0')},
        {DataShard::Use::validation, "data/v.bin", 7, std::string(64, 'f')}};
    {
        TrackLog log(folder / "log.txt");
        log.header(run);
        log.validation(0, 2, 10.5, 0);
        log.step(1, 2, 30);
        log.step(2, 2, 60);
        log.validation(2, 2, 3.25, 60);
        log.peak_memory(int64_t{100} << 20, int64_t{200} << 20);
        log.data(data);
    }
    const RunLog read_back = read_run_log(folder / "log.txt");
    ASSERT_EQ(read_back.runs.size(), 1U);
    EXPECT_EQ(read_back.unplaced_count, 0);
    const auto& back = read_back.runs.front();
    EXPECT_TRUE(back.complete()) << back.incomplete_reason();
    EXPECT_EQ(back.last_validation->loss, 3.25);
    EXPECT_EQ(back.train_time_ms, 60);
    EXPECT_EQ(back.peak_memory_mib, 100);
    EXPECT_EQ(back.data, data);
    EXPECT_EQ(back.seed, run.seed);
    EXPECT_EQ(back.header.started, 1784294932) << "date -ud 'Fri Jul 17 13:28:52 2026' +%s";
    EXPECT_EQ(back.header.hardware.text(), "AMD EPYC, 2 cores");
    EXPECT_EQ(back.header.versions, run.libraries);
    EXPECT_EQ(back.header.field("command"), run.command_line);
    EXPECT_EQ(back.header.field("config sha256"), run.config_hash);
    EXPECT_EQ(back.header.field("commit"), run.commit);
    EXPECT_EQ(back.header.field("build"), run.build);
    EXPECT_EQ(back.header.field("world size"), "8");
    EXPECT_EQ(back.header.field("threads"), "2");
}

// Runs of one attempt are one group: neither seed nor date tells them apart, the config and the commit do.
TEST(TrackLog, SourceHashIsThatOfConfigAndCommitWithoutTheSeed) {
    const TemporaryFolder folder;
    int written = 0;
    const auto hash_of = [&](const RunDescription& run) {
        const auto path = folder / ("log" + std::to_string(++written) + ".txt");
        TrackLog log(path);
        log.header(run);
        log.step(1, 2, 30);
        return read_run_log(path).runs.front().header.source_hash;
    };
    RunDescription other_seed = described(), other_config = described(), other_commit = described();
    other_seed.config_json = "{\"record\":43,\"runtime\":{\"seed\":12}}";
    other_seed.seed = 12;
    other_seed.date = "Sat Jul 18 13:28:52 2026";
    other_config.config_json = "{\"record\":44,\"runtime\":{\"seed\":7}}";
    other_commit.commit = "0123abc";
    const std::string hash = hash_of(described());
    EXPECT_FALSE(hash.empty());
    EXPECT_EQ(hash_of(other_seed), hash);
    EXPECT_NE(hash_of(other_config), hash);
    EXPECT_NE(hash_of(other_commit), hash);
}

TEST(DataShardLine, IsReadAsItIsWritten) {
    const DataShard shard{DataShard::Use::validation, "data/v.bin", 12, std::string(64, 'c')};
    const std::string line = data_shard_line(shard);
    EXPECT_EQ(line, "validation shard: data/v.bin, 12 bytes, sha256 " + std::string(64, 'c'));
    EXPECT_EQ(parse_data_shard_line(line), shard);
    for (const std::string& none :
         {std::string(), "shard: " + line, line.substr(1), line.substr(0, line.size() - 1), line + "g",
          "validation shard: v.bin, -1 bytes, sha256 " + std::string(64, 'c'),
          "validation shard: 12 bytes, sha256 " + std::string(64, 'c'),
          "training shard: v.bin, 99999999999999999999 bytes, sha256 " + std::string(64, 'c')})
        EXPECT_EQ(parse_data_shard_line(none), std::nullopt) << none;
}

TEST(LogDate, IsNvidiaSmis) {
    const std::string text = log_date(std::chrono::system_clock::now());
    EXPECT_EQ(text.size(), 24U) << text;
    EXPECT_EQ(text[13], ':') << text;
}

TEST(TrackLog, KeepsAnExistingFile) {
    const TemporaryFolder folder;
    TrackLog(folder / "log.txt").line("first");
    expect_user_error([&] { TrackLog(folder / "log.txt"); }, {"log.txt", "cannot create", "File exists"});
    EXPECT_EQ(read(folder / "log.txt"), "first\n");
}

TEST(TrackLog, SaysThatTheDiskIsFull) {
    TrackLog log("/dev/full");
    expect_user_error([&] { log.step(1, 2, 3); }, {"/dev/full", "cannot write", "No space left on device"});
}

TEST(TrackLog, SaysThatTheFileCannotBeCreated) {
    expect_user_error([] { TrackLog("/proc/no/log.txt"); }, {"/proc/no/log.txt", "cannot create"});
}

TEST(Hardware, NamesProcessorAndMemory) {
    const std::string table = hardware_table();
    for (const char* part : {"processor: ", "cores this process may use: ", "memory: ", "system: Linux"})
        EXPECT_NE(table.find(part), std::string::npos) << table;
    EXPECT_EQ(table.find("processor: \n"), std::string::npos) << table;
}

TEST(Hardware, PeakResidentGrowsWithTheMemoryTouched) {
    const int64_t before = peak_resident_bytes();
    EXPECT_GT(before, 1 << 20);
    constexpr size_t size = 256 << 20;
    const std::string touched(size, 'x');
    // All of it became resident; other pages may have left meanwhile, hence the slack.
    EXPECT_GT(peak_resident_bytes(), static_cast<int64_t>(size)) << touched.size();
    EXPECT_GT(peak_resident_bytes(), before);
}

}  // namespace
}  // namespace speedrun

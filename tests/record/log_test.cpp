#include "record/log.h"

#include <cmath>
#include <fstream>
#include <sstream>

#include "record/hardware.h"
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

// record/ serves other programs without the rest: example.cpp is linked with speedrun_record only.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <string>

#include "record/log_builder.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

std::string output_of(const std::string& command) {
    std::FILE* pipe = ::popen(command.c_str(), "r");
    std::string text;
    std::array<char, 1024> buffer{};
    while (const size_t got = std::fread(buffer.data(), 1, buffer.size(), pipe))
        text.append(buffer.data(), got);
    ::pclose(pipe);
    return text;
}

TEST(RecordAlone, JudgesAFolder) {
    const TemporaryFolder folder;
    for (int i = 0; i < 3; ++i)
        write_file(folder / "a" / (std::to_string(i) + ".txt"), log_text(20, 3.27 + 0.001 * i));
    const std::string example = SPEEDRUN_BUILD_DIR "/record_example";
    EXPECT_EQ(output_of(example + " " + (folder / "a").string()),
              (folder / "a").string() + ": n=3 loss=3.2710 p=0.00204 time=1000ms below target, p < 0.01\n");
    // The names alone: the addresses behind them are hexadecimal, and may hold c10.
    EXPECT_EQ(output_of("ldd " + example +
                        " | cut -d ' ' -f 1 | grep -c -E 'torch|c10|mpi|crypto|fmt|spdlog|xxhash'"),
              "0\n");
}

// Configuring, which is where a missing LibTorch would stop it; the build is that of the rooms here.
TEST(RecordAlone, IsTakenInWithoutLibTorch) {
    const TemporaryFolder build;
    const std::string command = "cmake -S " SPEEDRUN_SOURCE_DIR "/tests/record/consumer -B " +
                                build.path().string() +
                                " -DSPEEDRUN=" SPEEDRUN_SOURCE_DIR " -DLIBTORCH_DIR=/nowhere 2>&1; echo $?";
    const std::string output = output_of(command);
    EXPECT_TRUE(output.ends_with("\n0\n")) << output;
}

}  // namespace
}  // namespace speedrun

#include "util/host_memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/temporary_folder.h"

namespace speedrun {
namespace {

constexpr int64_t kMib = int64_t{1} << 20;

// A root with the files of a machine that has 1000 MiB available.
class HostMemory : public ::testing::Test {
  protected:
    HostMemory() {
        write("proc/meminfo", "MemTotal:        4096000 kB\nMemFree:            1000 kB\nMemAvailable:    " +
                                  std::to_string(1000 * 1024) + " kB\n");
    }
    void write(const std::string& name, const std::string& text) const {
        const std::filesystem::path file = root_ / name;
        std::filesystem::create_directories(file.parent_path());
        std::ofstream(file) << text;
    }
    void group(const std::string& folder, const std::string& limit, int64_t usage_mib,
               int64_t of_files_mib) const {
        write(folder + "/memory.max", limit + "\n");
        write(folder + "/memory.current", std::to_string(usage_mib * kMib) + "\n");
        write(folder + "/memory.stat", "anon 12345\ninactive_file " +
                                           std::to_string(of_files_mib * kMib - 4096) +
                                           "\nactive_file 4096\nshmem 1\n");
    }
    int64_t mib() const { return available_host_memory(root_.path()).value_or(-1) / kMib; }

    TemporaryFolder root_;
};

TEST_F(HostMemory, IsWhatTheKernelCallsAvailable) {
    EXPECT_EQ(mib(), 1000);
    write("proc/self/cgroup", "0::/no/such/group\n");
    EXPECT_EQ(mib(), 1000);
}

TEST_F(HostMemory, AGroupLeavesItsLimitLessWhatIsNotOfFiles) {
    write("proc/self/cgroup", "0::/jobs/run\n");
    group("sys/fs/cgroup/jobs/run", std::to_string(600 * kMib), 500, 300);
    EXPECT_EQ(mib(), 400);
    group("sys/fs/cgroup/jobs/run", std::to_string(600 * kMib), 700, 50);
    EXPECT_EQ(mib(), 0);
    group("sys/fs/cgroup/jobs/run", "max", 500, 300);
    EXPECT_EQ(mib(), 1000);
}

TEST_F(HostMemory, GroupsAboveCountToo) {
    write("proc/self/cgroup", "0::/jobs/run\n");
    group("sys/fs/cgroup/jobs/run", std::to_string(600 * kMib), 100, 0);
    group("sys/fs/cgroup/jobs", std::to_string(700 * kMib), 450, 0);
    EXPECT_EQ(mib(), 250);
    group("sys/fs/cgroup", std::to_string(200 * kMib), 0, 0);
    EXPECT_EQ(mib(), 200);
}

TEST_F(HostMemory, AContainerSeesItsGroupWhereThePathIsTheHosts) {
    write("proc/self/cgroup", "0::/docker/12ab\n");
    group("sys/fs/cgroup", std::to_string(300 * kMib), 100, 0);
    EXPECT_EQ(mib(), 200);
}

TEST_F(HostMemory, ReadsVersionOne) {
    write("proc/self/cgroup", "12:cpu,cpuacct:/\n9:memory:/jobs\n");
    write("sys/fs/cgroup/memory/jobs/memory.limit_in_bytes", std::to_string(500 * kMib) + "\n");
    write("sys/fs/cgroup/memory/jobs/memory.usage_in_bytes", std::to_string(400 * kMib) + "\n");
    write("sys/fs/cgroup/memory/jobs/memory.stat", "total_inactive_file " + std::to_string(50 * kMib) +
                                                       "\ntotal_active_file " + std::to_string(25 * kMib) +
                                                       "\n");
    // Of no limit at all.
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n");
    EXPECT_EQ(mib(), 175);
}

TEST_F(HostMemory, IsUnknownWithoutMeminfo) {
    std::filesystem::remove(root_ / "proc/meminfo");
    EXPECT_FALSE(available_host_memory(root_.path()).has_value());
}

TEST(HostMemoryHere, IsKnown) {
    const auto bytes = available_host_memory();
    ASSERT_TRUE(bytes.has_value());
    EXPECT_GT(*bytes, 0);
}

}  // namespace
}  // namespace speedrun

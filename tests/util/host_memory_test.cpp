#include "util/host_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "support/temporary_folder.h"
#include "util/control_groups.h"

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

TEST_F(HostMemory, LimitsOfTheProcessItself) {
    EXPECT_FALSE(available_address_space(root_.path()).has_value());
    write("proc/self/status", "VmPeak:\t 9 kB\nVmSize:\t 102400 kB\nVmData:\t 20480 kB\n");
    write("proc/self/limits",
          "Limit                     Soft Limit           Hard Limit           Units     \n"
          "Max data size             unlimited            unlimited            bytes     \n"
          "Max address space         " +
              std::to_string(300 * kMib) + "            unlimited            bytes     \n");
    EXPECT_EQ(available_address_space(root_.path()), 200 * kMib);
    write("proc/self/limits", "Max data size             " + std::to_string(50 * kMib) +
                                  "            unlimited            bytes     \n");
    EXPECT_EQ(available_address_space(root_.path()), 30 * kMib);
}

// Of which the affinity has more, if this machine has two cores.
TEST_F(HostMemory, AQuotaOfTheProcessorLeavesFewerCores) {
    const int64_t all = available_cores(root_.path());
    EXPECT_GE(all, 1);
    write("proc/self/cgroup", "0::/jobs/run\n");
    write("sys/fs/cgroup/jobs/run/cpu.max", "max 100000\n");
    EXPECT_EQ(available_cores(root_.path()), all);
    write("sys/fs/cgroup/jobs/cpu.max", "100000 100000\n");
    EXPECT_EQ(available_cores(root_.path()), 1);
    write("sys/fs/cgroup/jobs/cpu.max", "150000 100000\n");
    EXPECT_EQ(available_cores(root_.path()), std::min<int64_t>(all, 2));
    write("proc/self/cgroup", "4:cpu,cpuacct:/jobs\n");
    EXPECT_EQ(available_cores(root_.path()), all);
    write("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "50000\n");
    write("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n");
    EXPECT_EQ(available_cores(root_.path()), 1);
}

TEST(HostMemoryHere, IsKnown) {
    const auto bytes = available_host_memory();
    ASSERT_TRUE(bytes.has_value());
    EXPECT_GT(*bytes, 0);
}

}  // namespace
}  // namespace speedrun

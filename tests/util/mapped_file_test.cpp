#include "util/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <vector>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

class MappedFiles : public ::testing::Test {
  protected:
    std::filesystem::path write(size_t bytes) const {
        std::ofstream(folder_ / "file", std::ios::binary) << std::string(bytes, 'x');
        return folder_ / "file";
    }
    static int64_t count_x(const MappedFile& file) {
        return std::ranges::count(file.bytes(), std::byte{'x'});
    }
    TemporaryFolder folder_;
};

TEST_F(MappedFiles, HoldsTheBytesAlsoWithoutAName) {
    const auto path = write(10'000);
    MappedFile moved{path};
    const MappedFile file(std::move(moved));
    std::filesystem::remove(path);
    EXPECT_EQ(count_x(file), 10'000);
    EXPECT_NO_THROW(file.check_unchanged());
    EXPECT_TRUE(MappedFile(write(0)).bytes().empty());
}

// Pages behind the new end are gone: without the handler, reading them ends the process by SIGBUS.
TEST_F(MappedFiles, CutWhileInUseReadsZerosAndIsSaid) {
    const auto path = write(100'000);
    const MappedFile file(path), other(path);
    std::filesystem::resize_file(path, 5'000);
    EXPECT_EQ(count_x(file), 5'000);
    EXPECT_EQ(count_x(other), 5'000);
    expect_user_error([&] { file.check_unchanged(); }, {"file", "has 5000 bytes now", "had 100000"});
    std::filesystem::resize_file(path, 100'000);  // does not bring back what was read as zeros
    expect_user_error([&] { file.check_unchanged(); }, {"changed while in use"});
    EXPECT_NO_THROW(MappedFile(path).check_unchanged());
}

TEST_F(MappedFiles, OtherBusErrorsStillEndTheProcess) {
    const MappedFile file(write(10));  // the handler is there
    EXPECT_EXIT(raise(SIGBUS), ::testing::KilledBySignal(SIGBUS), "");
}

TEST_F(MappedFiles, RefusesWhatIsNoFile) {
    expect_user_error([&] { MappedFile(folder_ / "none"); }, {"none", "cannot be opened", "No such file"});
    expect_user_error([&] { MappedFile(folder_.path()); }, {"not a regular file"});
    ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
    expect_user_error([&] { MappedFile(folder_ / "pipe"); }, {"pipe", "not a regular file"});
}

}  // namespace
}  // namespace speedrun

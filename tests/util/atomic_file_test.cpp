#include "util/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "util/error.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

class AtomicFileTest : public ::testing::Test {
  protected:
    void SetUp() override {
        folder_ = fs::path(::testing::TempDir()) / ("atomic-" + std::to_string(::getpid()));
        fs::create_directories(folder_);
    }
    void TearDown() override { fs::remove_all(folder_); }
    std::string content(const fs::path& path) const {
        std::ifstream file(path);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    size_t files() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {})); }

    fs::path folder_;
};

TEST_F(AtomicFileTest, AppearsWholeOnCommit) {
    const fs::path path = folder_ / "a";
    std::ofstream(path) << "old";
    AtomicFile file(path);
    file.write("ne");
    file.write("w");
    EXPECT_EQ(content(path), "old");
    EXPECT_EQ(files(), 2u);
    file.commit();
    EXPECT_EQ(content(path), "new");
    EXPECT_EQ(files(), 1u);
    EXPECT_THROW(file.write("x"), InternalError);
}

TEST_F(AtomicFileTest, NothingStaysWithoutCommit) {
    { AtomicFile(folder_ / "a").write("text"); }
    EXPECT_EQ(files(), 0u);
}

TEST_F(AtomicFileTest, PlacesThatCannotBeWritten) {
    EXPECT_THROW(AtomicFile(folder_ / "none" / "a"), UserError);
    EXPECT_THROW(AtomicFile{folder_}, UserError);
    EXPECT_THROW(AtomicFile("/dev/full"), UserError);
}

TEST_F(AtomicFileTest, FailedWritesAreReportedAndLeaveNothing) {
    // A limit on the size of files fails a write as a full disk does, with another errno.
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{4096, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    std::string message;
    try {
        AtomicFile file(folder_ / "a");
        file.write(std::string(10'000, 'x'));
        file.commit();
    } catch (const UserError& error) {
        message = error.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    EXPECT_NE(message.find("cannot be written: File too large (after 4096 bytes)"), std::string::npos)
        << message;
    EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace speedrun

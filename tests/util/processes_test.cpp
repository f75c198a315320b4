// What is done with other processes: running them, seeing their files.
#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <thread>

#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "util/child_process.h"
#include "util/open_files.h"

namespace speedrun {
namespace {

TEST(RunChild, TellsHowItEnded) {
    EXPECT_EQ(run_child({"true"}).exit_code, 0);
    EXPECT_EQ(run_child({"sh", "-c", "exit 7"}).exit_code, 7);
    EXPECT_EQ(run_child({"sh", "-c", "kill -KILL $$"}).exit_code, 128 + SIGKILL);
    EXPECT_FALSE(run_child({"true"}).interrupted);
    expect_user_error([] { run_child({"no-such-program"}); }, {"no-such-program", "No such file"});
}

TEST(RunChild, WordsArriveAsTheyAre) {
    EXPECT_EQ(run_child({"sh", "-c", "test \"$1\" = 'a  \"b\" $c'", "sh", "a  \"b\" $c"}).exit_code, 0);
}

// The program ends by the signal; the test goes on.
TEST(RunChild, GivesSignalsOnAndLivesOn) {
    const ChildEnd end = run_child({"sh", "-c", "kill -TERM $PPID; sleep 20"});
    EXPECT_TRUE(end.interrupted);
    EXPECT_EQ(end.exit_code, 128 + SIGTERM);
    EXPECT_EQ(run_child({"true"}).exit_code, 0);
}

TEST(RunChild, OutputGoesToStderrOnRequest) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    run_child({"echo", "hello"}, ChildOutput::to_stderr);
    EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "hello\n");
}

TEST(ProgramExists, LooksAlongPath) {
    EXPECT_TRUE(program_exists("sh"));
    EXPECT_FALSE(program_exists("no-such-program"));
}

TEST(OpenFiles, SeesWhoWrites) {
    const TemporaryFolder folder;
    const auto path = folder / "log.txt";
    EXPECT_FALSE(is_open_for_writing(path)) << "does not exist";
    {
        std::ofstream out(path);
        EXPECT_TRUE(is_open_for_writing(path));
    }
    const std::ifstream in(path);
    EXPECT_FALSE(is_open_for_writing(path)) << "only read";
}

}  // namespace
}  // namespace speedrun

// What is done with other processes: running them, seeing their files.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
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

// A parent that ignores SIGCHLD hands that down through exec.
TEST(RunChild, ComesBackWhereSigchldIsIgnored) {
    ::signal(SIGCHLD, SIG_IGN);
    EXPECT_EQ(run_child({"sh", "-c", "exit 7"}).exit_code, 7);
    EXPECT_EQ(::signal(SIGCHLD, SIG_DFL), SIG_IGN) << "left as it was";
}

// Of a process that is killed, what it had started ends as well.
TEST(RunChild, EndsWithItsParent) {
    const TemporaryFolder folder;
    const std::string pid_file = folder / "pid";
    const pid_t parent = ::fork();
    if (parent == 0) {
        run_child({"sh", "-c",
                   "echo $$ >" + pid_file + ".new; mv " + pid_file + ".new " + pid_file + "; exec sleep 60"});
        ::_exit(0);
    }
    for (int i = 0; i < 2000 && !std::filesystem::exists(pid_file); ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    pid_t child = 0;
    std::ifstream(pid_file) >> child;
    ASSERT_GT(child, 0);
    ::kill(parent, SIGKILL);
    ::waitpid(parent, nullptr, 0);
    const auto ended = [&] {
        std::ifstream status("/proc/" + std::to_string(child) + "/stat");
        const std::string text{std::istreambuf_iterator<char>(status), {}};
        return text.empty() || text.find(") Z ") != std::string::npos;
    };
    for (int i = 0; i < 2000 && !ended(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_TRUE(ended());
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

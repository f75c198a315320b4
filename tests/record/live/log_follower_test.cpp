#include "record/live/log_follower.h"

#include <fstream>

#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

using State = RunProgress::State;
using std::chrono::milliseconds;

constexpr milliseconds kLong{600'000};

TEST(LogFollower, FollowsALogToItsEnd) {
    const TemporaryFolder folder;
    const auto path = folder / "log.txt";
    std::ofstream out(path);
    LogFollower follower(path, kLong);
    EXPECT_EQ(follower.poll().state, State::running) << "empty so far";
    const std::string log = log_text(40, 3.27);
    const size_t cut = log.find(step_line(21, 40, 1050)) + 5;  // within the line of step 21
    out << log.substr(0, cut) << std::flush;
    RunProgress half = follower.poll();
    EXPECT_EQ(half.state, State::running);
    EXPECT_EQ(half.step, 20);
    EXPECT_EQ(half.scheduled_steps, 40);
    EXPECT_EQ(half.validation->step, 20);
    EXPECT_NEAR(half.eta_seconds, 20 * 0.05, 1e-9);
    out << log.substr(cut) << std::flush;
    const RunProgress end = follower.poll();
    EXPECT_EQ(end.state, State::complete);
    EXPECT_EQ(end.validation->loss, 3.27);
    EXPECT_EQ(progress_json(end)["state"], "complete");
    EXPECT_EQ(progress_json(end)["val_loss"], 3.27);
}

TEST(LogFollower, TellsStalls) {
    const TemporaryFolder folder;
    const auto path = folder / "log.txt";
    std::string log;
    for (int i = 1; i <= 30; ++i) log += step_line(i, 100, 50 * i + (i >= 20 ? 1000 : 0)) + "\n";
    write_file(path, log);
    const RunProgress progress = LogFollower(path, kLong).poll();
    ASSERT_EQ(progress.stalls.hiccups.size(), 1U);
    EXPECT_EQ(progress.stalls.hiccups[0].step, 20);
    EXPECT_EQ(progress_json(progress)["stalls"]["steps"], nlohmann::ordered_json({20}));
}

TEST(LogFollower, ARunWhoseWriterIsGoneHasEnded) {
    const TemporaryFolder folder;
    const auto path = folder / "log.txt";
    std::optional<std::ofstream> out(path);
    *out << step_line(1, 9, 50) << '\n' << std::flush;
    LogFollower follower(path, kLong);
    EXPECT_EQ(follower.poll().state, State::running);
    EXPECT_EQ(follower.poll().state, State::running) << "open for writing";
    out.reset();
    EXPECT_EQ(follower.poll().state, State::ended);
}

TEST(LogFollower, ALogThatNobodyHereWritesEndsAfterPatience) {
    const TemporaryFolder folder;
    const auto path = folder / "log.txt";
    write_file(path, step_line(1, 9, 50) + "\n");
    LogFollower patient(path, kLong), impatient(path, milliseconds(0));
    patient.poll();
    EXPECT_EQ(patient.poll().state, State::running);
    EXPECT_EQ(impatient.poll().state, State::running) << "it has just grown";
    EXPECT_EQ(impatient.poll().state, State::ended);
}

TEST(LogFollower, MistakesAreUserErrors) {
    const TemporaryFolder folder;
    expect_user_error([&] { LogFollower(folder / "none", kLong); }, {"none", "cannot read"});
    write_file(folder / "log.txt", step_line(1, 9, 50) + "\n");
    LogFollower follower(folder / "log.txt", kLong);
    follower.poll();
    write_file(folder / "log.txt", "x\n");
    expect_user_error([&] { follower.poll(); }, {"log.txt", "has become shorter"});
    write_file(folder / "binary", std::string(600, '\0'));
    expect_user_error([&] { LogFollower(folder / "binary", kLong).poll(); }, {"binary", "not a log"});
}

}  // namespace
}  // namespace speedrun

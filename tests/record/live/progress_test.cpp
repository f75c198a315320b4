#include "record/live/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <string>

#include "support/terminal_columns.h"

namespace speedrun {
namespace {

using namespace std::chrono_literals;

// Both ends of a pipe, and a clock set by hand.
class ProgressTest : public testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(::pipe(ends_.data()), 0);
        ASSERT_EQ(::fcntl(ends_[0], F_SETFL, O_NONBLOCK), 0);
    }
    void TearDown() override {
        for (const int end : ends_) ::close(end);
    }

    std::string written() {
        std::array<char, 8192> buffer;
        const ssize_t got = ::read(ends_[0], buffer.data(), buffer.size());
        return std::string(buffer.data(), static_cast<size_t>(got > 0 ? got : 0));
    }
    Progress progress(Progress::Mode mode) {
        return Progress(ends_[1], mode, [this] { return now_; });
    }
    static ProgressState at(int64_t step) { return {step, 400, 5.5, {}, 17321.0, 0.43, 125.0}; }

    std::array<int, 2> ends_{};
    std::chrono::steady_clock::time_point now_{};
};

TEST_F(ProgressTest, RedrawsATerminalAtMostTenTimesASecond) {
    Progress line = progress(Progress::Mode::terminal);
    int drawn = 0;
    for (int step = 1; step <= 1000; ++step, now_ += 1ms) {
        line.update(at(step));
        const std::string text = written();
        drawn += !text.empty();
        EXPECT_EQ(text.find('\n'), std::string::npos);
        EXPECT_EQ(text.find("\r\x1b[K"), text.empty() ? std::string::npos : 0);
    }
    EXPECT_EQ(drawn, 10);
    line.finish();
    const std::string last = written();
    EXPECT_NE(last.find("step 1000/400"), std::string::npos) << last;
    EXPECT_EQ(last.back(), '\n');
    line.finish();
    EXPECT_EQ(written(), "");
}

TEST_F(ProgressTest, PutsALineAboveTheLiveOne) {
    Progress line = progress(Progress::Mode::terminal);
    line.update(at(7));
    written();
    line.line("val_loss:5.1");
    const std::string text = written();
    EXPECT_EQ(text.find("\r\x1b[Kval_loss:5.1\n"), 0u) << text;
    EXPECT_NE(text.find("step 7/400"), std::string::npos) << text;
}

TEST_F(ProgressTest, WritesPlainLinesElsewhere) {
    Progress line = progress(Progress::Mode::automatic);  // a pipe is no terminal
    for (int step = 1; step <= 60; ++step, now_ += 1s) line.update(at(step));
    line.finish();
    const std::string text = written();
    EXPECT_EQ(text.find('\r'), std::string::npos);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    // Steps 1, 11, 21, 31, 41, 51, and the last.
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 7);
    EXPECT_NE(text.find("step 60/400  loss 5.500  ETA 2:05  17.3k tok/s  43% of peak\n"), std::string::npos)
        << text;
}

TEST_F(ProgressTest, SilentWritesNothing) {
    Progress line = progress(Progress::Mode::silent);
    line.update(at(1));
    line.line("hello");
    line.finish();
    EXPECT_EQ(written(), "");
}

TEST_F(ProgressTest, OutlivesAnUnwritableTerminal) {
    Progress line(-1, Progress::Mode::terminal, [this] { return now_; });
    line.update(at(1));
    line.line("hello");
}

TEST(ProgressLine, NeverWiderThanAsked) {
    const ProgressState state{37, 400, 5.1, 5.2, 17321.0, 0.43, 125.0};
    for (int width = 0; width <= 200; ++width)
        EXPECT_LE(columns(progress_line(state, width)), static_cast<size_t>(width));
    EXPECT_EQ(progress_line(state, 35), "step 37/400  loss 5.100  val 5.200");
    EXPECT_NE(progress_line(state, 79).find("▕"), std::string::npos);
}

TEST(ProgressLine, SurvivesOddNumbers) {
    EXPECT_EQ(progress_line({0, 0, {}, {}, {}, {}, {}}, 12), "step 0/0");
    EXPECT_NE(progress_line({500, 400, NAN, {}, {}, {}, INFINITY}, 100).find("loss nan  ETA ?"),
              std::string::npos);
}

TEST(ProgressTexts, AreShort) {
    EXPECT_EQ(duration_text(12.4), "12s");
    EXPECT_EQ(duration_text(59.6), "1:00");
    EXPECT_EQ(duration_text(245), "4:05");
    EXPECT_EQ(duration_text(3723), "1:02:03");
    EXPECT_EQ(rate_text(812), "812 tok/s");
    EXPECT_EQ(rate_text(17321), "17.3k tok/s");
    EXPECT_EQ(rate_text(2.55e6), "2.5M tok/s");
}

TEST(ProgressOnATerminal, EscapesAreForThoseThatKnowThem) {
    const int keyboard = ::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    ASSERT_TRUE(keyboard >= 0 && ::grantpt(keyboard) == 0 && ::unlockpt(keyboard) == 0);
    const int screen = ::open(::ptsname(keyboard), O_RDWR | O_NOCTTY);
    ASSERT_GE(screen, 0);
    const char* const before = std::getenv("TERM");
    const std::string kept = before == nullptr ? "" : before;
    for (const std::string terminal : {"xterm", "dumb", ""}) {
        ::setenv("TERM", terminal.c_str(), 1);
        Progress line(screen);
        ProgressState state;
        state.step = 1;
        state.total_steps = 4;
        line.update(state);
        std::array<char, 8192> buffer{};
        const ssize_t got = ::read(keyboard, buffer.data(), buffer.size());
        const std::string text(buffer.data(), static_cast<size_t>(std::max<ssize_t>(got, 0)));
        EXPECT_NE(text.find("step 1/4"), std::string::npos) << text;
        EXPECT_EQ(text.find('\x1b') != std::string::npos, terminal == "xterm") << terminal;
    }
    ::setenv("TERM", kept.c_str(), 1);
    ::close(screen);
    ::close(keyboard);
}

// A reader that stands still behind a full pipe holds up a run for a second at most, once.
TEST_F(ProgressTest, LeavesOutWhatNobodyTakes) {
    ASSERT_EQ(::fcntl(ends_[1], F_SETFL, O_NONBLOCK), 0);
    const std::string block(4096, 'x');
    while (::write(ends_[1], block.data(), block.size()) > 0) {
    }
    ASSERT_EQ(::fcntl(ends_[1], F_SETFL, 0), 0);
    Progress line = progress(Progress::Mode::plain);
    const auto began = std::chrono::steady_clock::now();
    for (int i = 0; i < 100; ++i) line.line("lost");
    EXPECT_LT(std::chrono::steady_clock::now() - began, 3s);
    while (!written().empty()) {
    }
    line.line("heard");
    EXPECT_EQ(written(), "heard\n");
}

TEST_F(ProgressTest, AReaderThatIsGoneEndsNothing) {
    const auto before = std::signal(SIGPIPE, SIG_IGN);
    ::close(ends_[0]);
    Progress line = progress(Progress::Mode::plain);
    line.line("to nobody");
    line.finish();
    std::signal(SIGPIPE, before);
    ASSERT_EQ(::pipe(ends_.data()), 0);  // for TearDown
}

}  // namespace
}  // namespace speedrun

#include "record/live/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <string>

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

size_t columns(const std::string& line) {
    size_t n = 0;
    for (const char c : line) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return n;
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

}  // namespace
}  // namespace speedrun

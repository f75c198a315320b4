#include "record/live/progress.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace speedrun {
namespace {

using std::chrono::milliseconds;

constexpr auto kRedraw = milliseconds(100);
constexpr auto kPlainInterval = milliseconds(10'000);
constexpr int kPlainColumns = 200;
constexpr int kLeastBarColumns = 6, kMostBarColumns = 24;
constexpr const char* kClearRow = "\r\x1b[K";

// Eighths of a block give the bar eight times its columns in resolution.
std::string bar(double share, int columns) {
    static constexpr const char* kEighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    const int eighths = static_cast<int>(std::clamp(share, 0.0, 1.0) * columns * 8);
    std::string result;
    for (int i = 0; i < eighths / 8; ++i) result += "█";
    result += kEighths[eighths % 8];
    const int used = eighths / 8 + (eighths % 8 != 0);
    return result + std::string(static_cast<size_t>(columns - used), ' ');
}

int terminal_columns(int fd) {
    winsize size{};
    return ::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

bool knows_escapes() {
    const char* const terminal = std::getenv("TERM");
    return terminal != nullptr && *terminal != '\0' && std::string_view(terminal) != "dumb";
}

std::vector<std::string> numbers(const ProgressState& state) {
    std::vector<std::string> parts;
    if (state.train_loss) parts.push_back(fmt::format("loss {:.3f}", *state.train_loss));
    if (state.val_loss) parts.push_back(fmt::format("val {:.3f}", *state.val_loss));
    if (state.eta_seconds) parts.push_back("ETA " + duration_text(*state.eta_seconds));
    if (state.tokens_per_second) parts.push_back(rate_text(*state.tokens_per_second));
    if (state.peak_share) parts.push_back(fmt::format("{:.0f}% of peak", 100 * *state.peak_share));
    return parts;
}

}  // namespace

std::string duration_text(double seconds) {
    if (!std::isfinite(seconds) || seconds < 0) return "?";
    const long long total = std::llround(seconds);
    if (total < 60) return fmt::format("{}s", total);
    if (total < 3600) return fmt::format("{}:{:02}", total / 60, total % 60);
    return fmt::format("{}:{:02}:{:02}", total / 3600, total / 60 % 60, total % 60);
}

std::string rate_text(double tokens_per_second) {
    if (tokens_per_second >= 1e6) return fmt::format("{:.1f}M tok/s", tokens_per_second / 1e6);
    if (tokens_per_second >= 1e4) return fmt::format("{:.1f}k tok/s", tokens_per_second / 1e3);
    return fmt::format("{:.0f} tok/s", tokens_per_second);
}

std::string progress_line(const ProgressState& state, int columns) {
    const double share =
        state.total_steps > 0 ? static_cast<double>(state.step) / static_cast<double>(state.total_steps) : 0;
    std::string line = fmt::format("step {}/{}", state.step, state.total_steps);
    int used = static_cast<int>(line.size());
    if (used > columns) return line.substr(0, static_cast<size_t>(std::max(columns, 0)));
    for (const auto& part : numbers(state)) {
        if (used + 2 + static_cast<int>(part.size()) > columns) break;
        line += "  " + part;
        used += 2 + static_cast<int>(part.size());
    }
    const int bar_columns = std::min(kMostBarColumns, columns - used - 3);
    return bar_columns < kLeastBarColumns ? line : "▕" + bar(share, bar_columns) + "▏ " + line;
}

Progress::Progress(int fd, Mode mode, Clock clock) : fd_(fd), mode_(mode), clock_(std::move(clock)) {
    if (mode_ == Mode::automatic)
        mode_ = ::isatty(fd_) == 1 && knows_escapes() ? Mode::terminal : Mode::plain;
}

Progress::~Progress() {
    finish();
}

void Progress::update(const ProgressState& state) {
    state_ = state;
    pending_ = true;
    const auto interval = mode_ == Mode::terminal ? kRedraw : kPlainInterval;
    if (!drawn_at_ || clock_() - *drawn_at_ >= interval) draw();
}

void Progress::draw() {
    drawn_at_ = clock_();
    pending_ = false;
    std::string row;
    if (mode_ == Mode::terminal) {
        // One column stays free: some terminals wrap when the last one is written.
        row.append(kClearRow).append(progress_line(state_, terminal_columns(fd_) - 1));
    } else {
        row.append(progress_line(state_, kPlainColumns)).append("\n");
    }
    standing_ = mode_ == Mode::terminal;
    write(row);
}

void Progress::line(std::string_view text) {
    const bool redraw = standing_;
    std::string row(redraw ? kClearRow : "");
    write(row.append(text).append("\n"));
    standing_ = false;
    if (redraw) draw();
}

void Progress::finish() {
    if (pending_) draw();
    if (standing_) write("\n");
    standing_ = false;
}

// A full pipe whose reader stands still, a terminal that is stopped.
bool Progress::takes_more() {
    constexpr int kPatienceMs = 1000;
    pollfd out{.fd = fd_, .events = POLLOUT, .revents = 0};
    int ready = 0;
    while ((ready = ::poll(&out, 1, stalled_ ? 0 : kPatienceMs)) < 0 && errno == EINTR) {
    }
    stalled_ = ready == 0;
    return ready > 0;
}

void Progress::write(std::string_view text) {
    if (mode_ == Mode::silent) return;
    while (!text.empty() && takes_more()) {
        // What a pipe that is not full takes for sure.
        const ssize_t written = ::write(fd_, text.data(), std::min<size_t>(text.size(), PIPE_BUF));
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return;
        text.remove_prefix(static_cast<size_t>(written));
    }
}

}  // namespace speedrun

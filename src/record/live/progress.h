#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace speedrun {

// The numbers of one progress line. Absent ones are left out.
struct ProgressState {
    int64_t step = 0, total_steps = 0;
    std::optional<double> train_loss, val_loss;  // nats per token
    std::optional<double> tokens_per_second;
    std::optional<double> peak_share;   // of the GEMM peak measured at the start, 0..1
    std::optional<double> eta_seconds;  // until the end of the run
};

// One line of at most `columns` terminal columns: a bar and as many of the numbers as fit, the most useful
// first.
std::string progress_line(const ProgressState& state, int columns);

// "1:02:03", "4:05", "12s".
std::string duration_text(double seconds);
// "17.3M tok/s", "812 tok/s".
std::string rate_text(double tokens_per_second);

// The live line of a run: redrawn in place at most ten times a second on a terminal; elsewhere a plain line
// at the first update, then at most one every ten seconds, and one at the end.
class Progress {
  public:
    using Clock = std::function<std::chrono::steady_clock::time_point()>;
    enum class Mode { automatic, terminal, plain, silent };

    // Writes to the file descriptor `fd` (not owned); automatic: terminal where it is one that knows escape
    // sequences. Nothing here may end or hold up a run: write errors are ignored, and where nobody takes what
    // is written for a second, it is left out until somebody does.
    explicit Progress(int fd, Mode mode = Mode::automatic, Clock clock = std::chrono::steady_clock::now);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    // New numbers; draws them if it is time to.
    void update(const ProgressState& state);
    // A line that stays, above the live one.
    void line(std::string_view text);
    // Draws the last numbers if they are not shown yet and leaves the line standing. Called by the
    // destructor.
    void finish();

  private:
    void draw();
    void write(std::string_view text);
    bool takes_more();

    int fd_;
    Mode mode_;
    Clock clock_;
    ProgressState state_;
    std::optional<std::chrono::steady_clock::time_point> drawn_at_;
    bool pending_ = false;   // state_ has not been drawn
    bool standing_ = false;  // a live line is on the terminal's last row
    bool stalled_ = false;   // nobody has taken what was written last
};

}  // namespace speedrun

#include "app/run_place.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <thread>

#include "app/resume.h"
#include "comm/gather_text.h"
#include "model/load_config.h"
#include "record/live/status_file.h"
#include "util/error.h"
#include "util/files.h"
#include "util/line_file.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

bool lies_in(const fs::path& path, const fs::path& folder) {
    const auto inner = files::real_path(path), outer = files::real_path(folder);
    if (!inner || !outer) return false;
    return std::ranges::mismatch(*outer, *inner).in1 == outer->end();
}

// Nothing in the directory took longer to make than it takes to begin anew.
bool was_cut_early(const fs::path& run_dir) {
    const auto checkpoints = files::list_if_there(run_dir / run_files::checkpoints);
    return !files::exists(run_dir / run_files::weights) &&
           std::ranges::all_of(
               checkpoints, [](const fs::path& entry) { return entry.filename().string().starts_with("."); });
}

// A file in the run's directory for as long as the ranks look for it.
class Token {
  public:
    explicit Token(const RunDir& dir) {
        std::random_device random;
        path_ = dir.path() /
                (run_files::seen_by_all + std::to_string(::getpid()) + "-" + std::to_string(random()));
        LineFile(path_).line("rank 0 is here");
    }
    ~Token() { files::try_remove(path_); }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;
    std::string name() const { return path_.filename().string(); }

  private:
    fs::path path_;
};

// A network's file system may show a new file a little later; listing the folder makes it look.
bool appears(const fs::path& file) {
    using namespace std::chrono_literals;
    const auto until = std::chrono::steady_clock::now() + 5s;
    while (!files::exists(file)) {
        if (std::chrono::steady_clock::now() > until) return false;
        std::this_thread::sleep_for(50ms);
        files::list_if_there(file.parent_path());
    }
    return true;
}

}  // namespace

bool belongs_to(const Checkpoint& checkpoint, const fs::path& run_dir) {
    return files::same(checkpoint.folder.parent_path(), run_dir / run_files::checkpoints);
}

bool is_finished(const fs::path& run_dir, const Config& config, const std::optional<Checkpoint>& checkpoint) {
    if (read_state(run_dir / run_files::status) != "finished" || !files::exists(run_dir / run_files::config))
        return false;
    const bool to_make_again = checkpoint && (checkpoint->manifest.step < config.schedule.total_steps() ||
                                              !files::exists(run_dir / run_files::weights));
    return !to_make_again && compute_the_same(load_saved_config(run_dir / run_files::config), config);
}

RunDir::Former former_run(const fs::path& run_dir, const std::optional<Checkpoint>& checkpoint,
                          const PlaceWishes& wishes, std::vector<std::string>& notes) {
    if (checkpoint && belongs_to(*checkpoint, run_dir)) return RunDir::Former::go_on;
    if (wishes.overwrite && checkpoint && lies_in(checkpoint->folder, run_dir))
        throw UserError("--overwrite: run directory " + run_dir.string() + " holds the checkpoint " +
                        checkpoint->folder.string() + ", which is to be resumed");
    if (wishes.overwrite) return RunDir::Former::replace;
    if (!wishes.automatic || checkpoint || !was_cut_early(run_dir)) return RunDir::Former::none;
    if (files::exists(run_dir / run_files::config))
        notes.emplace_back("the run that was here ended before its first checkpoint; it begins anew");
    return RunDir::Former::replace;
}

void require_common_folder(const fs::path& run_dir, const RunDir* held,
                           const std::vector<RankPlacement>& placements, Communicator& communicator) {
    if (communicator.world_size() == 1) return;
    const std::optional<Token> token = held ? std::optional<Token>(std::in_place, *held) : std::nullopt;
    const std::string name = gather_text(communicator, token ? token->name() : "", "run directory").front();
    const auto seen = gather_text(communicator, appears(run_dir / name) ? "yes" : "no", "run directory");
    const auto blind = std::ranges::find(seen, "no");
    if (blind == seen.end()) return;
    const auto rank = static_cast<size_t>(blind - seen.begin());
    throw UserError("run directory " + run_dir.string() + ": rank " + std::to_string(rank) + " on " +
                    placements[rank].host + " does not see what rank 0 on " + placements[0].host +
                    " writes there, but every rank writes a part of each checkpoint: give a folder, by its "
                    "absolute path, of a file system that all hosts share");
}

}  // namespace speedrun

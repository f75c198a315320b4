#include "app/resume.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "model/load_config.h"
#include "util/error.h"
#include "util/files.h"
#include "util/text.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// What tensors there are and what they mean.
constexpr std::array kFixed{"model.",
                            "numerics.params",
                            "optimizer.params.",
                            "optimizer.adam.state_dtype",
                            "optimizer.matrix.rule",
                            "optimizer.matrix.second_moment",
                            "optimizer.matrix.orthogonalize.method",
                            "optimizer.matrix.momentum.form",
                            "optimizer.matrix.direction.kind",
                            "optimizer.matrix.row_norms",
                            "optimizer.matrix.preconditioner.max_size",
                            "data.vocab_size"};
// Where and how a run runs, but not what it computes.
constexpr std::array kFree{"runtime.threads",      "runtime.device",      "runtime.attention",
                           "runtime.cuda_graphs",  "runtime.checkpoint.", "runtime.collective_deadline_s",
                           "runtime.memory_check", "optimizer.comm."};

template <size_t n>
bool among(const std::array<const char*, n>& prefixes, const std::string& path) {
    return std::ranges::any_of(prefixes, [&](const char* prefix) { return path.starts_with(prefix); });
}

bool is_free(const std::string& path) {
    return among(kFree, path) || (path.starts_with("optimizer.params.") && path.ends_with(".comm"));
}

// A line a value, as config_diff has them.
std::vector<std::string> differences(const Config& a, const Config& b) {
    std::vector<std::string> all;
    std::istringstream lines(config_diff(a, b));
    for (std::string line; std::getline(lines, line);) all.push_back(line);
    return all;
}

std::string path_of(const std::string& difference) {
    return difference.substr(0, difference.find(':'));
}

// Each line indented below the text in front of them.
std::string below(const std::vector<std::string>& lines) {
    return "\n  " + joined(lines, "\n  ");
}

void require_none(const std::string& what, const std::vector<std::string>& changes) {
    if (!changes.empty())
        throw UserError(
            what + " from those of the checkpoint; give --accept-changes if that is meant:" + below(changes));
}

std::string name_of(std::span<const ShardIdentity> shards, size_t index) {
    return index < shards.size() ? printable(shard_text(shards[index])) : "(none)";
}

void add_differences(const std::string& use, std::span<const ShardIdentity> then,
                     std::span<const ShardIdentity> now, std::vector<std::string>& changes) {
    for (size_t i = 0; i < std::max(then.size(), now.size()); ++i)
        if (i >= then.size() || i >= now.size() || !then[i].same_content(now[i]))
            changes.push_back(use + " shard " + std::to_string(i + 1) + ": " + name_of(then, i) + " -> " +
                              name_of(now, i));
}

}  // namespace

std::optional<Checkpoint> choose_checkpoint(const std::string& where, const fs::path& run_dir,
                                            std::vector<std::string>& notes) {
    const bool automatic = where == "auto";
    fs::path place = automatic ? run_dir : fs::path(where);
    if (!place.has_filename()) place = place.parent_path();  // a slash at its end
    if (!automatic && files::exists(place / "checkpoint.json")) return open_checkpoint(place);
    const fs::path folder = place / "checkpoints";
    std::vector<std::string> damaged;
    auto found = find_checkpoint(folder, damaged);
    if (found) {
        for (const std::string& what : damaged) notes.push_back("passed over a damaged checkpoint: " + what);
        return found;
    }
    if (!damaged.empty())
        throw UserError("every checkpoint in " + folder.string() + " is damaged:" + below(damaged));
    if (automatic) return std::nullopt;
    throw UserError("--resume " + where +
                    ": no checkpoint there; it wants a checkpoint's folder, a run's directory, " + "or auto");
}

std::vector<std::string> config_changes(const Checkpoint& checkpoint, const Config& now, bool accepted) {
    const Config then = load_saved_config(checkpoint.folder / "config.json");
    const std::vector<std::string> all = differences(then, now);
    std::vector<std::string> fixed, asked;
    for (const std::string& line : all) {
        if (is_free(path_of(line))) continue;
        (among(kFixed, path_of(line)) ? fixed : asked).push_back(line);
    }
    if (!fixed.empty())
        throw UserError(
            "the run cannot go on under this config: the checkpoint is of another model or other optimizer "
            "state:" +
            below(fixed));
    if (!accepted) require_none("settings differ", asked);
    return all;
}

bool compute_the_same(const Config& a, const Config& b) {
    return std::ranges::all_of(differences(a, b),
                               [](const std::string& line) { return is_free(path_of(line)); });
}

std::vector<std::string> data_changes(const Checkpoint& checkpoint, std::span<const ShardIdentity> train,
                                      std::span<const ShardIdentity> val, bool accepted) {
    std::vector<std::string> changes;
    add_differences("training", checkpoint.manifest.train_shards, train, changes);
    add_differences("validation", checkpoint.manifest.val_shards, val, changes);
    if (!accepted) require_none("shards differ", changes);
    return changes;
}

std::string parallel_change(const CheckpointManifest& then, int64_t ranks, int64_t threads) {
    const auto text = [](int64_t r, int64_t t) {
        return std::to_string(r) + (r == 1 ? " rank" : " ranks") + " and " + std::to_string(t) +
               (t == 1 ? " thread" : " threads");
    };
    if (then.world_size == ranks && then.threads == threads) return "";
    return text(then.world_size, then.threads) + " wrote the checkpoint, " + text(ranks, threads) +
           " go on: the results are those of an uncut run to rounding, not bit for bit";
}

}  // namespace speedrun

#include "record/judge/groups.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "record/judge/group_text.h"
#include "record/judge/same_run.h"
#include "record/log/parse_report.h"
#include "util/error.h"
#include "util/files.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// One file to read, and the folder its runs are grouped under.
struct Source {
    fs::path file, folder;
    bool named = false;  // by the user, not found in a folder
};

struct ReadFile {
    RunLog log;
    std::string problem;  // "" where it could be read
};

bool is_log_name(const fs::path& path) {
    return path.extension() == ".txt" || path.extension() == ".log";
}

void find_logs(const fs::path& folder, std::vector<Source>& sources, Collection& out);

// Links to folders are not followed: they could lead back.
void look_at(const fs::path& entry, std::vector<Source>& sources, Collection& out) {
    const bool is_link = files::link_target(entry).has_value();
    if (is_log_name(entry) && files::is_file(entry)) {
        sources.push_back({entry, entry.parent_path(), false});
    } else if (!is_link && files::is_folder(entry)) {
        find_logs(entry, sources, out);
    }
}

// What is in a folder and below it. What cannot be read hides nothing but itself.
void find_logs(const fs::path& folder, std::vector<Source>& sources, Collection& out) {
    const auto tell = [&](const auto& look) {
        try {
            look();
        } catch (const UserError& error) {
            out.problems.emplace_back(error.what());
        }
    };
    std::vector<fs::path> entries;
    tell([&] { entries = files::list(folder); });
    for (const fs::path& entry : entries) tell([&] { look_at(entry, sources, out); });
}

void find_named(const fs::path& path, std::vector<Source>& sources, Collection& out) {
    const size_t sources_before = sources.size(), problems_before = out.problems.size();
    switch (files::kind(path)) {
        case files::Kind::none:
            out.problems.push_back(path.string() + ": No such file or directory");
            return;
        case files::Kind::folder:
            find_logs(path.has_filename() ? path : path.parent_path(), sources, out);
            if (sources.size() == sources_before && out.problems.size() == problems_before)
                out.problems.push_back(path.string() + ": no logs (*.txt, *.log) in this folder");
            return;
        case files::Kind::other:
            if (!files::is_pipe(path)) {
                out.problems.push_back(path.string() + ": neither a file nor a folder");
                return;
            }
            [[fallthrough]];
        case files::Kind::file:
            sources.push_back({path, path.parent_path(), true});
    }
}

std::vector<Source> find_sources(std::span<const fs::path> paths, Collection& out) {
    std::vector<Source> sources;
    for (const fs::path& path : paths) {
        try {
            find_named(path, sources, out);
        } catch (const UserError& error) {
            out.problems.emplace_back(error.what());
        }
    }
    std::ranges::sort(sources, {}, [](const Source& s) { return std::tie(s.folder, s.file); });
    const auto repeated = std::ranges::unique(sources, {}, &Source::file);
    sources.erase(repeated.begin(), repeated.end());
    return sources;
}

ReadFile read_one(const Source& source, const ParseOptions& options) {
    ReadFile file;
    try {
        file.log = read_run_log(source.file, options);
    } catch (const UserError& error) {
        file.problem = error.what();
        file.log.path = source.file;
    }
    return file;
}

std::vector<ReadFile> read_all(const std::vector<Source>& sources, const CollectOptions& options) {
    std::vector<ReadFile> files(sources.size());
    std::atomic<size_t> next = 0;
    const auto work = [&] {
        for (size_t i = next++; i < sources.size(); i = next++)
            files[i] = read_one(sources[i], options.parse);
    };
    const size_t wanted = options.threads > 0 ? static_cast<size_t>(options.threads)
                                              : std::max(1U, std::thread::hardware_concurrency());
    std::vector<std::jthread> others;
    for (size_t i = 1; i < std::min(wanted, sources.size()); ++i) others.emplace_back(work);
    work();
    others.clear();
    return files;
}

struct Key {
    fs::path folder;
    int64_t steps = 0;
    std::string source_hash, hardware;
    auto operator<=>(const Key&) const = default;
};

struct LeftOut {
    Key key;
    Excluded what;
    bool is_run = false;  // not a file without runs
};

// Why `run` is no sample beside `sample`; "" where it is one. The program is deterministic, so that a seed
// makes one run, however often it is made.
std::string repeat_reason(const GroupRun& run, const GroupRun& sample) {
    if (same_run(run.run, sample.run)) return "the same run as " + run_name(sample.path, sample.index);
    const bool same_source = run.run.header.source_hash == sample.run.header.source_hash;
    if (!same_source || !run.run.seed || run.run.seed != sample.run.seed) return "";
    return "seed " + std::to_string(*run.run.seed) + " once more, as in " +
           run_name(sample.path, sample.index) + ": no sample of its own";
}

// Why the run has no place in a group of track 3; "" where it has one. Whoever left out a run that was
// stopped might have stopped it for its losses: only one that had not shown any is left out.
std::string unvalidated_reason(const Run& run) {
    if (run.repeats_another) return "repeats lines of a run above it";
    const bool validated = run.last_validation && run.last_validation->step > 0;
    return validated ? "" : "has no validation after its start";
}

class Grouping {
  public:
    Grouping(Collection& out, const CollectOptions& options)
        : out_(out), pool_(options.pool), counts_steps_(options.counts_steps) {}

    void add(const Source& source, const RunLog& log) {
        out_.unplaced_count += log.unplaced_count;
        const Key folder = key_of_folder(source);
        if (const std::string reason = no_log_reason(log); !reason.empty()) {
            if (source.named) out_.problems.push_back(source.file.string() + ": not a log: " + reason);
            left_.push_back({folder, {source.file, 0, reason}, false});
            return;
        }
        for (const auto& remark : log_remarks(log)) out_.remarks.push_back(remark);
        const auto [first, is_new] =
            originals_.try_emplace({folder.folder, log.bytes, log.content_hash}, source.file);
        for (size_t i = 0; i < log.runs.size(); ++i) {
            const Key key = key_of(folder.folder, log.runs[i]);
            if (is_new) {
                add_run(key, {source.file, i, log.runs[i]});
            } else {
                leave_out(key, {source.file, i, "same bytes as " + first->second.string(), true});
            }
        }
    }

    void add_unreadable(const Source& source, const std::string& problem) {
        out_.problems.push_back(problem);
        left_.push_back({key_of_folder(source), {source.file, 0, "cannot be read"}, false});
    }

    void finish() {
        for (LeftOut& left : left_) {
            RunGroup& group = home_of(left.key);
            group.has_log = group.has_log || left.is_run;
            group.excluded.push_back(std::move(left.what));
        }
        for (auto& [key, group] : groups_) {
            group.has_log = group.has_log || !group.runs.empty();
            group.path = key.folder;
            group.steps = key.steps;
            group.source_hash = key.source_hash;
            group.hardware = key.hardware;
            out_.groups.push_back(std::move(group));
        }
    }

  private:
    Key key_of_folder(const Source& source) const {
        Key key;
        key.folder = pool_ ? fs::path("pooled") : source.folder;
        return key;
    }

    Key key_of(const fs::path& folder, const Run& run) const {
        const int64_t steps = run.scheduled_steps.value_or(run.final_step);
        if (counts_steps_) return {folder, steps, "", ""};
        return {folder, steps, run.header.source_hash, run.header.hardware.text()};
    }

    void leave_out(const Key& key, Excluded what) { left_.push_back({key, std::move(what), true}); }

    // Of several logs of one run the fullest is the sample.
    void add_run(const Key& key, GroupRun run) {
        std::string reason = counts_steps_ ? unvalidated_reason(run.run) : run.run.incomplete_reason();
        if (!reason.empty()) return leave_out(key, {run.path, run.index, reason});
        std::vector<GroupRun>& samples = groups_[key].runs;
        for (GroupRun& sample : samples) {
            if (repeat_reason(run, sample).empty()) continue;
            if (run.run.validations.size() > sample.run.validations.size()) std::swap(run, sample);
            return leave_out(key, {run.path, run.index, repeat_reason(run, sample), true});
        }
        samples.push_back(std::move(run));
    }

    // The group that an excluded run would have been in; else the largest of its folder; else one of its own.
    RunGroup& home_of(const Key& key) {
        if (const auto exact = groups_.find(key); exact != groups_.end()) return exact->second;
        RunGroup* largest = nullptr;
        for (auto& [other, group] : groups_) {
            if (other.folder != key.folder) continue;
            if (largest == nullptr || group.runs.size() > largest->runs.size()) largest = &group;
        }
        return largest != nullptr ? *largest : groups_[key];
    }

    Collection& out_;
    bool pool_, counts_steps_;
    std::map<Key, RunGroup> groups_;
    std::vector<LeftOut> left_;
    std::map<std::tuple<fs::path, uint64_t, uint64_t>, fs::path> originals_;  // by folder, size, hash
};

}  // namespace

std::string RunGroup::name() const {
    if (!path.empty()) return path.string();
    std::set<std::string> files;
    for (const GroupRun& run : runs) files.insert(run.path.string());
    for (const Excluded& left_out : excluded) files.insert(left_out.path.string());
    return files.size() == 1 ? *files.begin() : ".";
}

std::vector<double> RunGroup::final_losses() const {
    std::vector<double> losses;
    for (const GroupRun& run : runs) losses.push_back(run.run.last_validation->loss);
    return losses;
}

std::vector<double> RunGroup::final_times_ms() const {
    std::vector<double> times;
    for (const GroupRun& run : runs) times.push_back(run.run.last_validation->train_time_ms);
    return times;
}

Collection collect_runs(std::span<const fs::path> paths, const CollectOptions& options) {
    Collection out;
    const auto sources = find_sources(paths, out);
    const auto files = read_all(sources, options);
    Grouping grouping(out, options);
    for (size_t i = 0; i < files.size(); ++i) {
        ++out.files;
        out.bytes += files[i].log.bytes;
        if (files[i].problem.empty()) {
            grouping.add(sources[i], files[i].log);
        } else {
            grouping.add_unreadable(sources[i], files[i].problem);
        }
    }
    grouping.finish();
    return out;
}

}  // namespace speedrun

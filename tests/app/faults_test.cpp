// What a machine does to a run: full and read-only disks, shards that change under it, ranks that die, clocks
// that are set back, a second run in its directory. No checkpoint is lost, nothing wrong is resumed, the last
// line says what happened, and the exit code is that of util/exit_codes.h.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "support/golden_runs.h"
#include "support/running_job.h"
#include "support/step_hold.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// A small file system in memory, gone at the end of the scope. Only root may mount one, and not everywhere.
class SmallDisk {
  public:
    SmallDisk(fs::path path, const std::string& options) : path_(std::move(path)) {
        fs::create_directories(path_);
        mounted_ = run_command("mount -t tmpfs -o " + options + " tmpfs " + path_.string()).exit_code == 0;
    }
    ~SmallDisk() {
        if (mounted_) run_command("umount -l " + path_.string());
    }
    SmallDisk(const SmallDisk&) = delete;
    SmallDisk& operator=(const SmallDisk&) = delete;
    bool mounted() const { return mounted_; }

  private:
    fs::path path_;
    bool mounted_ = false;
};

// Takes what is free on a disk until the end of the scope, also what becomes free meanwhile, as when a
// checkpoint that could not be written is removed.
class Filler {
  public:
    explicit Filler(fs::path file)
        : file_(std::move(file)), thread_([this](const std::stop_token& stop) { fill(stop); }) {}
    ~Filler() {
        thread_.request_stop();
        thread_.join();
        fs::remove(file_);
    }
    Filler(const Filler&) = delete;
    Filler& operator=(const Filler&) = delete;
    bool full() const { return full_; }

  private:
    void fill(const std::stop_token& stop) {
        const int file = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
        const std::vector<char> block(4096);
        while (!stop.stop_requested())
            if (::write(file, block.data(), block.size()) <= 0) {
                full_ = true;
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        ::close(file);
    }

    fs::path file_;
    std::atomic<bool> full_ = false;
    std::jthread thread_;
};

// Space on the disk for `bytes` more of the file, whose size stays.
void reserve_blocks(const fs::path& path, off_t bytes) {
    const int file = ::open(path.c_str(), O_WRONLY);
    const auto size = static_cast<off_t>(fs::file_size(path));
    EXPECT_EQ(::fallocate(file, FALLOC_FL_KEEP_SIZE, size, bytes), 0) << std::strerror(errno);
    ::close(file);
}

// Eight steps, checkpoints after every second one, validations of a few tokens. A checkpoint is there when
// the next one begins: with step 5 the one of step 2.
const std::string eight =
    "--set schedule.scheduled_steps=5 --set data.val_tokens=1024 --set runtime.checkpoint.keep_last=100 ";
const std::string every_step = eight + "--set runtime.checkpoint.every_steps=1 ";

struct Undisturbed {
    TrainingRun run;
    std::string weights;  // the bytes
    uintmax_t checkpoint_bytes = 0;
    std::set<std::string> checkpoints;
};

class Faults : public GoldenRuns {
  protected:
    Faults() { settings_ = rows_a_step(2); }
    std::unique_ptr<RunningJob> run(const std::string& name, const std::string& more,
                                    const std::string& before = "") const {
        return std::make_unique<RunningJob>(before + command(name, more), folder_ / "out");
    }
    std::unique_ptr<RunningJob> run_on(int ranks, const std::string& name, const std::string& more,
                                       const StepHold& hold) const {
        return run(name, more,
                   "env ASAN_OPTIONS=detect_leaks=0 mpirun -n " + std::to_string(ranks) +
                       " --quiet --oversubscribe --allow-run-as-root --bind-to none " + hold.environment());
    }
    StepHold hold_after(int64_t step, const std::string& name) const { return {folder_ / name, step}; }
    void wait_for_step(RunningJob& job, const std::string& name, int64_t step) const {
        EXPECT_TRUE(job.wait_until([&] { return steps_done(name) >= step; })) << job.finish(1).output;
    }
    std::set<std::string> checkpoints(const std::string& name) const {
        std::set<std::string> names;
        std::error_code none;
        for (const auto& entry : fs::directory_iterator(folder_ / name / "checkpoints", none))
            names.insert(entry.path().filename());
        return names;
    }
    // The run goes on, and ends as one that nothing happened to.
    void expect_resumes(int ranks, const std::string& name, const std::string& more,
                        const Undisturbed& whole) const {
        const TrainingRun rest = train(ranks, name, more + " --resume auto ");
        EXPECT_EQ(rest.train_losses, whole.run.train_losses);
        EXPECT_EQ(rest.val_losses, whole.run.val_losses);
        EXPECT_TRUE(contents(rest.weights) == whole.weights);
    }
    // What becomes of the run where nothing happens to it; made once for all tests.
    const Undisturbed& whole(int ranks) const {
        static std::map<int, Undisturbed> made;
        if (!made.contains(ranks)) made[ranks] = undisturbed(ranks, every_step);
        return made[ranks];
    }
    Undisturbed undisturbed(int ranks, const std::string& more) const {
        const std::string name = "undisturbed" + std::to_string(ranks);
        Undisturbed made{train(ranks, name, more), "", 0, checkpoints(name)};
        made.weights = contents(made.run.weights);
        for (const auto& file : fs::directory_iterator(folder_ / name / "checkpoints/step_00000002"))
            made.checkpoint_bytes += file.file_size();
        return made;
    }
    // With room for two checkpoints and a half.
    std::string disk_size(const Undisturbed& whole) const {
        return "size=" + std::to_string(whole.checkpoint_bytes * 5 / 2 + whole.weights.size() / 4);
    }
};

void expect_says(const JobResult& job, std::initializer_list<std::string> parts) {
    for (const std::string& part : parts)
        EXPECT_NE(job.output.find(part), std::string::npos) << part << " not in: " << job.output;
}

// The third checkpoint does not fit. The run says so and goes on; its weights fit in what is left.
TEST_F(Faults, DiskFullInASave) {
    const SmallDisk disk(folder_ / "disk", disk_size(whole(1)));
    if (!disk.mounted()) GTEST_SKIP() << "a small disk needs the right to mount one";
    const JobResult job = start(1, "disk/run", every_step);
    EXPECT_EQ(job.exit_code, 0) << job.output;
    expect_says(job, {"the checkpoint after step 6 could not be written", "No space left on device",
                      "saved " + (folder_ / "disk/run/checkpoints/step_00000004").string()});
    EXPECT_EQ(checkpoints("disk/run"), (std::set<std::string>{"step_00000002", "step_00000004"}));
    EXPECT_TRUE(contents(folder_ / "disk/run/weights.safetensors") == whole(1).weights);

    const TrainingRun rest = train(1, "rest", every_step + "--resume " + (folder_ / "disk/run").string());
    EXPECT_EQ(rest.train_losses.size(), 4U);
    EXPECT_TRUE(contents(rest.weights) == whole(1).weights);
}

TEST_F(Faults, DiskFullWhenASignalWantsACheckpoint) {
    const SmallDisk disk(folder_ / "disk", disk_size(whole(1)));
    if (!disk.mounted()) GTEST_SKIP() << "a small disk needs the right to mount one";
    const StepHold hold = hold_after(5, "disk/run");
    const auto job = run("disk/run", every_step, hold.environment());
    wait_for_step(*job, "disk/run", 5);
    job->send(SIGTERM);
    hold.release();
    const JobResult result = job->finish();
    EXPECT_EQ(result.exit_code, kUserError) << result.output;
    expect_says(result, {"but its checkpoint could not be written; the last one before it stands"});
    EXPECT_EQ(checkpoints("disk/run"), (std::set<std::string>{"step_00000002", "step_00000004"}));
    expect_says({0, contents(folder_ / "disk/run/status.json")}, {"\"failed\"", "could not be written"});
}

// Not even a line of the metrics fits any more: those of --diagnostics are longer than a block. The log has
// room, so that it is always the metrics that fail.
TEST_F(Faults, DiskFullForTheLog) {
    const SmallDisk disk(folder_ / "disk", "size=200m");
    if (!disk.mounted()) GTEST_SKIP() << "a small disk needs the right to mount one";
    const std::string more = every_step + "--diagnostics 1";
    const StepHold hold = hold_after(5, "disk/run");
    const auto job = run("disk/run", more, hold.environment());
    wait_for_step(*job, "disk/run", 5);
    reserve_blocks(folder_ / "disk/run/log.txt", 8192);
    const JobResult result = [&] {
        const Filler filler(folder_ / "disk/filler");
        EXPECT_TRUE(job->wait_until([&] { return filler.full(); }));
        hold.release();
        return job->finish();
    }();
    EXPECT_EQ(result.exit_code, kUserError) << result.output;
    expect_says(result, {"metrics.jsonl: cannot write: No space left on device"});
    EXPECT_TRUE(checkpoints("disk/run").contains("step_00000002"));
    expect_resumes(1, "disk/run", more, whole(1));
}

TEST_F(Faults, ReadOnlyRunDirectory) {
    const SmallDisk disk(folder_ / "disk", "ro,size=60m");
    const std::string place = disk.mounted() ? "disk" : "../../proc";
    const JobResult job = start(1, place + "/run", "");
    EXPECT_EQ(job.exit_code, kUserError) << job.output;
    expect_says(job, {"run directory", "/run: cannot be created"});
    if (!disk.mounted()) return;
    const JobResult itself = start(1, place, "");
    EXPECT_EQ(itself.exit_code, kUserError) << itself.output;
    expect_says(itself, {"cannot be written", "Read-only file system"});
}

TEST_F(Faults, AShardIsTruncatedInMidRun) {
    whole(2);
    const auto shard = folder_ / "train_1.bin";
    const auto bytes = fs::file_size(shard);
    const StepHold hold = hold_after(3, "cut");
    const auto job = run_on(2, "cut", every_step, hold);
    wait_for_step(*job, "cut", 3);  // by now the tokens of six steps have been read
    fs::resize_file(shard, bytes / 3);
    hold.release();
    const JobResult result = job->finish();
    EXPECT_EQ(result.exit_code, kUserError) << result.output;
    expect_says(result, {"train_1.bin: has " + std::to_string(bytes / 3) + " bytes now, and had " +
                         std::to_string(bytes) + " when it was opened: it was changed while in use"});
    EXPECT_TRUE(checkpoints("cut").contains("step_00000002"));
    fs::remove(shard);
    write_shard(shard, golden::train_tokens_1());
    expect_resumes(2, "cut", every_step, whole(2));
}

// In use it is held, so that training goes on to its end; what is missing then is its checksum.
TEST_F(Faults, AShardInUseVanishes) {
    whole(1);
    const StepHold hold = hold_after(2, "gone");
    const auto job = run("gone", every_step, hold.environment());
    wait_for_step(*job, "gone", 2);
    fs::remove(folder_ / "train_1.bin");
    hold.release();
    const JobResult result = job->finish();
    EXPECT_EQ(result.exit_code, kUserError) << result.output;
    expect_says(result, {"train_1.bin: cannot be read for its checksum, which the log lacks",
                         "No such file or directory"});
    EXPECT_TRUE(contents(folder_ / "gone/weights.safetensors") == whole(1).weights);
}

TEST_F(Faults, AShardVanishesBeforeItsTurn) {
    settings_.clear();  // whole steps, for each of which a shard is made
    const std::vector<uint16_t> tokens = golden::train_tokens_1();
    std::vector<size_t> cuts{0};  // where documents start, 3,500 tokens apart: a step each
    for (size_t at = 0; at < tokens.size(); ++at)
        if (tokens[at] == golden::kBos && at >= cuts.back() + 3'500) cuts.push_back(at);
    ASSERT_GE(cuts.size(), 10U);
    const auto shard = [&](size_t i) {
        return folder_ / (std::string("part_") + static_cast<char>('a' + i) + ".bin");
    };
    const auto write = [&](size_t i) {
        write_shard(shard(i), std::span(tokens).subspan(cuts[i], cuts[i + 1] - cuts[i]));
    };
    for (size_t i = 0; i + 1 < cuts.size(); ++i) write(i);
    const std::string parts = every_step + "--set data.train=" + (folder_ / "part_*.bin").string() + " ";
    const Undisturbed all = undisturbed(1, parts);
    const StepHold hold = hold_after(3, "gone");
    const auto job = run("gone", parts, hold.environment());
    wait_for_step(*job, "gone", 3);
    fs::remove(shard(7));
    hold.release();
    const JobResult result = job->finish();
    EXPECT_EQ(result.exit_code, kUserError) << result.output;
    expect_says(result, {"part_h.bin: cannot be opened: No such file or directory"});
    EXPECT_FALSE(checkpoints("gone").empty());
    write(7);
    expect_resumes(1, "gone", parts, all);
}

// Rank 0, which reports, and another one. Its code is mpirun's for a killed rank, or that of those left.
TEST_F(Faults, OneOfSeveralRanksIsKilled) {
    for (const bool leader : {true, false}) {
        SCOPED_TRACE(leader ? "rank 0" : "rank 1");
        const std::string name = leader ? "leader" : "other";
        const StepHold hold = hold_after(3, name);
        const auto job = run_on(2, name, every_step, hold);
        wait_for_step(*job, name, 3);
        const pid_t first = read_json(folder_ / name / "status.json").at("process");
        const std::vector<pid_t> ranks = ranks_of(folder_ / name);
        ASSERT_EQ(ranks.size(), 2U);
        for (const pid_t rank : ranks)
            if ((rank == first) == leader) kill(rank, SIGKILL);
        const JobResult result = job->finish();
        EXPECT_TRUE(result.exit_code == kRankLost || result.exit_code == 128 + SIGKILL)
            << result.exit_code << ": " << result.output;
        expect_says(result, {leader ? "rank 0" : "rank 1"});
        // mpirun may end a moment before the last rank, which holds the directory.
        for (int i = 0; i < 1000 && !ranks_of(folder_ / name).empty(); ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        EXPECT_TRUE(ranks_of(folder_ / name).empty());
        expect_resumes(2, name, every_step, whole(2));
    }
}

// Every look at the wall clock is an hour earlier than the one before. Checkpoints by minutes still come, the
// run's clock only grows, and the newest checkpoint is the one with the most steps, whatever its files'
// times.
TEST_F(Faults, TheClockIsSetBack) {
    const std::string minutes = eight + "--set runtime.checkpoint.every_minutes=0.0001 ";
    const StepHold hold = hold_after(7, "back");
    const std::string set_back = hold.environment(SPEEDRUN_BACKWARDS_CLOCK);
    const auto job = run("back", minutes, set_back);
    wait_for_step(*job, "back", 7);
    job->send(SIGKILL);
    job->finish();
    hold.release();
    const auto saved = checkpoints("back");
    EXPECT_GE(std::ranges::count_if(saved, [](const auto& n) { return n.starts_with("step_"); }), 2);
    auto time = fs::file_time_type::clock::now() + std::chrono::hours(24 * 365);
    for (const std::string& name : saved) {
        fs::last_write_time(folder_ / "back/checkpoints" / name, time);
        time -= std::chrono::hours(24 * 365);
    }
    const auto rest = run("back", minutes + "--resume auto ", set_back);
    const JobResult result = rest->finish();
    EXPECT_EQ(result.exit_code, 0) << result.output;
    const auto newest =
        std::ranges::max(saved, {}, [](const auto& n) { return n.starts_with("step_") ? n : ""; });
    expect_says(result, {"resumed from " + (folder_ / "back/checkpoints" / newest).string()});
    EXPECT_TRUE(contents(folder_ / "back/weights.safetensors") == whole(1).weights);
    double before = -1;
    std::ifstream metrics(folder_ / "back/metrics.jsonl");
    for (std::string line; std::getline(metrics, line);) {
        const double now = json::parse(line).at("train_time_ms");
        EXPECT_GE(now, before) << line;
        EXPECT_LT(now, 60'000) << line;
        before = now;
    }
}

TEST_F(Faults, ASecondRunInTheDirectory) {
    whole(1);
    const StepHold hold = hold_after(2, "shared");
    const auto first = run("shared", every_step, hold.environment());
    wait_for_step(*first, "shared", 2);
    const JobResult second = start(1, "shared", every_step + "--overwrite");
    EXPECT_EQ(second.exit_code, kUserError) << second.output;
    expect_says(second, {"another run is using it"});
    hold.release();
    const JobResult result = first->finish();
    EXPECT_EQ(result.exit_code, 0) << result.output;
    EXPECT_TRUE(contents(folder_ / "shared/weights.safetensors") == whole(1).weights);
    EXPECT_EQ(checkpoints("shared"), whole(1).checkpoints);
}

}  // namespace
}  // namespace speedrun

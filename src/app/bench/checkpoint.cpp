#include <ATen/core/Tensor.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/bench/timing.h"
#include "app/session.h"
#include "app/verbs.h"
#include "comm/make_communicator.h"
#include "model/load_config.h"
#include "optim/optimizer.h"
#include "plan/rank_memory.h"
#include "train/checkpoint/find.h"
#include "train/checkpoint/load.h"
#include "train/checkpoint/writer.h"
#include "util/error.h"
#include "util/files.h"
#include "util/positioned_file.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;
using Seconds = std::chrono::duration<double>;

double seconds(const std::function<void()>& work) {
    const auto began = std::chrono::steady_clock::now();
    work();
    return Seconds(std::chrono::steady_clock::now() - began).count();
}

// What has been synced leaves memory, so that the next look at it is one at the disk.
void forget(const fs::path& file) {
    const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "a file that was just written");
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
}

// The disk's own rates: one file of so many bytes in blocks of 16 MiB, synced; and read.
void write_plain(const fs::path& path, std::span<const std::byte> block, int64_t bytes) {
    PositionedFile file(path, static_cast<uint64_t>(bytes));
    for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(block.size()))
        file.write(block.first(std::min(block.size(), static_cast<size_t>(bytes - at))),
                   static_cast<uint64_t>(at));
    file.sync();
}

void read_plain(const fs::path& path, std::span<std::byte> block) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    check(fd >= 0, "a file that was just written");
    while (::read(fd, block.data(), block.size()) > 0) {
    }
    ::close(fd);
}

struct Times {
    std::vector<double> snapshot, save, load, disk_write, disk_read;
};

void print(const char* what, const std::vector<double>& times, int64_t bytes) {
    const auto rate = [&](double s) { return static_cast<double>(bytes) / s / 1e9; };
    std::printf("%-34s %8.3f s  %6.2f GB/s  (%.2f .. %.2f)\n", what, median(times), rate(median(times)),
                rate(std::ranges::max(times)), rate(std::ranges::min(times)));
}

// What is saved and loaded, and where.
struct Subject {
    const Config& config;
    GPT& model;
    Optimizer& optimizer;
    Communicator& communicator;
    fs::path folder;
    CheckpointLayout layout;
};

void finish(CheckpointWriter& writer) {
    writer.wait();
    if (const std::string error = writer.error(); !error.empty()) throw UserError(error);
}

// Each part once, in turns with the disk's own.
void time_round(const Subject& subject, CheckpointWriter& writer, int64_t step, std::span<std::byte> block,
                Times& times) {
    const int64_t bytes = subject.layout.extent_bytes();
    CheckpointManifest manifest;
    manifest.step = manifest.data.step = step;
    times.snapshot.push_back(seconds([&] { writer.begin(subject.layout, manifest); }));
    times.save.push_back(seconds([&] {
        finish(writer);
        writer.commit(1);
        finish(writer);
    }));
    const fs::path saved = writer.path_of(step), plain = subject.folder / "plain";
    for (const auto& file : files::list(saved)) forget(file);
    times.load.push_back(seconds([&] {
        load_checkpoint(open_checkpoint(saved), subject.config, subject.model.parameters(), subject.optimizer,
                        subject.communicator);
    }));
    times.disk_write.push_back(seconds([&] { write_plain(plain, block, bytes); }));
    forget(plain);
    times.disk_read.push_back(seconds([&] { read_plain(plain, block); }));
    files::remove(plain);
}

// A folder that is gone at the end of the scope.
class ScratchFolder {
  public:
    explicit ScratchFolder(const fs::path& where)
        : path_(where / (".bench_checkpoint_" + std::to_string(::getpid()))) {
        files::make_folders(path_);
    }
    ~ScratchFolder() { files::try_remove_all(path_); }
    ScratchFolder(const ScratchFolder&) = delete;
    ScratchFolder& operator=(const ScratchFolder&) = delete;
    const fs::path& path() const { return path_; }

  private:
    fs::path path_;
};

int time_checkpoints(const cxxopts::ParseResult& options) {
    const auto rounds = whole<int64_t>(options, "rounds");
    if (rounds < 1) throw UserError("bench checkpoint: --rounds must be positive");
    const Config config = load_config(options["config"].as<std::string>(),
                                      value_or_empty<std::vector<std::string>>(options, "set"));
    set_threads(config.runtime);
    const auto model =
        make_model(config, std::nullopt, row_lengths(config).back(), choose_device(config.runtime));
    const auto communicator = make_self_communicator();
    Optimizer optimizer(config, model->parameters(), *communicator);
    const ScratchFolder scratch(options["folder"].as<std::string>());
    const Subject subject{
        config,         *model,
        optimizer,      *communicator,
        scratch.path(), checkpoint_layout(config, model->parameters(), optimizer, 0, 1, false)};
    CheckpointWriter writer({.folder = scratch.path() / "checkpoints",
                             .config_json = config.resolved_json,
                             .token = "0",
                             .keep = {}});
    std::vector<std::byte> block(size_t{16} << 20, std::byte{0x5A});
    Times unused, times;
    for (int64_t step = 1; step <= rounds + 1; ++step)
        time_round(subject, writer, step, block, step == 1 ? unused : times);
    const int64_t bytes = subject.layout.extent_bytes();
    std::printf("%.1f MB of state; medians of %lld, slowest and fastest in brackets\n",
                static_cast<double>(bytes) / 1e6, static_cast<long long>(rounds));
    print("snapshot, which a step waits for", times.snapshot, bytes);
    print("save: write, sync, hash, rename", times.save, bytes);
    print("the disk's own write and sync", times.disk_write, bytes);
    print("load: hash, copy", times.load, bytes);
    print("the disk's own read", times.disk_read, bytes);
    return 0;
}

}  // namespace

int bench_checkpoint(int argc, char** argv) {
    cxxopts::Options specification("speedrun bench checkpoint",
                                   "Time saving and loading of a run's state, and the disk itself");
    auto add = specification.add_options();
    add("config", "run's JSON file", cxxopts::value<std::string>());
    add("set", "override a value", cxxopts::value<std::vector<std::string>>());
    add("folder", "where the disk is; a folder is made there and removed",
        cxxopts::value<std::string>()->default_value("."));
    add("rounds", "how often each is timed, in turns", cxxopts::value<std::string>()->default_value("5"));
    const auto options = parse_verb(specification, argc, argv, {"config"});
    return options ? time_checkpoints(*options) : 0;
}

}  // namespace speedrun

#include "comm/placement.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>

#include "comm/gather_text.h"
#include "util/control_groups.h"
#include "util/files.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

constexpr int kMaxCores = 1 << 16;

struct FreeSet {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
};

std::vector<int64_t> affinity() {
    const std::unique_ptr<cpu_set_t, FreeSet> set(CPU_ALLOC(kMaxCores));
    const size_t bytes = CPU_ALLOC_SIZE(kMaxCores);
    CPU_ZERO_S(bytes, set.get());
    std::vector<int64_t> cores;
    if (sched_getaffinity(0, bytes, set.get()) != 0) return cores;
    for (int core = 0; core < kMaxCores; ++core)
        if (CPU_ISSET_S(static_cast<size_t>(core), bytes, set.get())) cores.push_back(core);
    return cores;
}

// A core's folder in /sys holds a link "nodeN".
std::string numa_nodes(std::span<const int64_t> cores) {
    std::vector<int64_t> nodes;
    for (const int64_t core : cores) {
        for (const auto& entry : files::list_if_there("/sys/devices/system/cpu/cpu" + std::to_string(core))) {
            const std::string name = entry.filename().string();
            if (name.starts_with("node") && name.find_first_not_of("0123456789", 4) == std::string::npos)
                nodes.push_back(std::stoll(name.substr(4)));
        }
    }
    std::sort(nodes.begin(), nodes.end());
    nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
    return nodes.empty() ? "?" : ranges_text(nodes);
}

std::string to_text(const RankPlacement& p) {
    return Json({p.host, p.pid, p.device, p.numa, p.cores, p.core_count, p.threads}).dump();
}

RankPlacement from_text(const std::string& text) {
    const Json json = parse_json(text, "placement");
    return {json[0], json[1], json[2], json[3], json[4], json[5], json[6]};
}

}  // namespace

std::string ranges_text(std::span<const int64_t> numbers) {
    return joined(number_ranges(numbers), ",");
}

RankPlacement this_placement(c10::Device device) {
    std::array<char, 256> host{};
    gethostname(host.data(), host.size() - 1);
    const std::vector<int64_t> cores = affinity();
    return {.host = host.data(),
            .pid = getpid(),
            .device = device.str(),
            .numa = numa_nodes(cores),
            .cores = ranges_text(cores),
            .core_count = available_cores()};
}

int64_t threads_of_rank(std::span<const RankPlacement> placements, int64_t rank) {
    const RankPlacement& own = placements[static_cast<size_t>(rank)];
    const auto sharing = std::count_if(placements.begin(), placements.end(), [&](const RankPlacement& other) {
        return other.host == own.host && other.cores == own.cores;
    });
    return std::max<int64_t>(1, own.core_count / sharing);
}

std::vector<RankPlacement> gather_placements(Communicator& communicator, c10::Device device,
                                             int64_t threads) {
    RankPlacement own = this_placement(device);
    own.threads = threads;
    std::vector<RankPlacement> placements;
    for (const std::string& text : gather_text(communicator, to_text(own), "placement"))
        placements.push_back(from_text(text));
    for (size_t r = 0; r < placements.size(); ++r)
        if (placements[r].threads == 0)
            placements[r].threads = threads_of_rank(placements, static_cast<int64_t>(r));
    return placements;
}

std::string placement_table(std::span<const RankPlacement> placements) {
    using Row = std::array<std::string, 7>;
    std::vector<Row> rows = {{"rank", "host", "pid", "device", "NUMA", "cores", "threads"}};
    for (size_t r = 0; r < placements.size(); ++r) {
        const RankPlacement& p = placements[r];
        rows.push_back({std::to_string(r), p.host, std::to_string(p.pid), p.device, p.numa, p.cores,
                        std::to_string(p.threads)});
    }
    std::string text;
    for (const Row& row : rows) {
        std::string line;
        for (size_t column = 0; column < row.size(); ++column) {
            size_t width = 0;
            for (const Row& other : rows) width = std::max(width, other[column].size());
            line += row[column] + std::string(width - row[column].size() + 2, ' ');
        }
        text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    }
    return text;
}

}  // namespace speedrun

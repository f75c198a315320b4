#include "plan/memory_check.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <map>

#include "plan/scaling.h"
#include "record/log/hardware.h"
#include "util/error.h"
#include "util/host_memory.h"

namespace speedrun {
namespace {

std::vector<int64_t> divisors(int64_t n) {
    std::vector<int64_t> found;
    for (int64_t d = 1; d * d <= n; ++d) {
        if (n % d != 0) continue;
        found.push_back(d);
        if (d * d != n) found.push_back(n / d);
    }
    std::ranges::sort(found);
    return found;
}

struct Place {
    int64_t ranks = 0, needed = 0;
    std::optional<int64_t> free_bytes;  // the least that one of its ranks has found
};

std::map<std::string, Place> places_of(std::span<const RankRoom> rooms, std::span<const RankMemory> memory) {
    std::map<std::string, Place> places;
    for (size_t rank = 0; rank < rooms.size(); ++rank) {
        Place& place = places[rooms[rank].place];
        ++place.ranks;
        place.needed += memory[rank].peak();
        if (const auto& found = rooms[rank].free_bytes)
            place.free_bytes = std::min(*found, place.free_bytes.value_or(*found));
    }
    return places;
}

bool fits(const Place& place) {
    return !place.free_bytes || place.needed <= *place.free_bytes;
}

std::string mebibytes(int64_t bytes) {
    return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB";
}

std::string way_out(const Config& config, const std::optional<int64_t>& rows) {
    const std::string now = std::to_string(config.data.rows);
    if (rows && *rows > config.data.rows)
        return "It would fit with data.rows = " + std::to_string(*rows) + ", not " + now +
               ": shorter rows, which are another model.";
    return "No data.rows would fit, it is " + now + ": the model or data.val_micro_batch_tokens = " +
           std::to_string(config.data.val_micro_batch_tokens) + " must be smaller.";
}

}  // namespace

std::optional<int64_t> fewest_rows(const Config& config, const Graph& graph, const Ownership& ownership,
                                   Operators operators,
                                   const std::function<bool(std::span<const RankMemory>)>& fits) {
    // The shortest can need more than longer ones: each micro-batch has its list of documents.
    for (const int64_t rows : divisors(common_batch_tokens(config))) {
        if (rows % ownership.world_size != 0) continue;
        Config other = config;
        other.data.rows = rows;
        if (fits(rank_memory(other, graph, ownership, operators))) return rows;
    }
    return {};
}

std::optional<int64_t> free_memory(c10::Device device) {
    if (device.is_cpu()) return available_host_memory();
    return static_cast<int64_t>(c10::getDeviceAllocator(device.type())->getMemoryInfo(device.index()).first);
}

PeakMemory peak_memory(c10::Device device) {
    if (device.is_cpu()) return {peak_resident_bytes(), peak_resident_bytes()};
    const auto stats = c10::getDeviceAllocator(device.type())->getDeviceStats(device.index());
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return {stats.allocated_bytes[all].peak, stats.reserved_bytes[all].peak};
}

void require_memory(const Config& config, std::span<const RankRoom> rooms, Operators operators) {
    const Graph graph = compile(config);
    const Ownership ownership = plan_ownership(config, static_cast<int64_t>(rooms.size()));
    const auto all_fit = [&](std::span<const RankMemory> memory) {
        const auto places = places_of(rooms, memory);
        return std::ranges::all_of(places, [](const auto& place) { return fits(place.second); });
    };
    for (const auto& [name, place] : places_of(rooms, rank_memory(config, graph, ownership, operators))) {
        if (fits(place)) continue;
        const std::string ranks = place.ranks > 1 ? "its " + std::to_string(place.ranks) + " ranks need "
                                                  : std::string("the run needs ");
        throw UserError("too little memory on " + name + ": " + ranks + mebibytes(place.needed) + ", " +
                        mebibytes(*place.free_bytes) + " are free. " +
                        way_out(config, fewest_rows(config, graph, ownership, operators, all_fit)) +
                        " `speedrun plan` lists what takes how much; runtime.memory_check=false starts it "
                        "without this check");
    }
}

}  // namespace speedrun

#pragma once
// What a machine is assumed to do, for plans made without it.
#include <cstdint>
#include <span>
#include <string>

namespace speedrun {

// One GPU (or, for "cpu", one rank's cores) and its share of the wires. Rates are what good software reaches,
// not data-sheet peaks; they are assumptions, and a plan says so.
struct Machine {
    std::string name, what;
    double bf16_flops = 0;         // dense, a second
    double fp8_flops = 0;          // 0: none
    double memory_bandwidth = 0;   // bytes/s
    double link_bandwidth = 0;     // bytes/s a rank sends to ranks of its node
    double network_bandwidth = 0;  // bytes/s a rank sends to other nodes
    double link_hop = 0;           // seconds a message takes to the next rank of the node
    double network_hop = 0;        // and to the next node
    double launch = 0;             // seconds to start a collective
    int64_t memory_bytes = 0;
    int64_t reserved_bytes = 0;  // context, libraries and their workspaces: nothing a run can use
    int64_t ranks_per_node = 8;  // the usual
    bool gpu = true;
};

std::span<const Machine> machines();

// By its name, in whatever case. UserError with the names there are.
const Machine& find_machine(const std::string& name);

}  // namespace speedrun

#include "plan/machine.h"

#include <algorithm>
#include <array>
#include <vector>

#include "util/error.h"
#include "util/nearest.h"
#include "util/text.h"

namespace speedrun {
namespace {

constexpr int64_t kGib = int64_t{1} << 30;

// GEMMs of large shapes reach 70 to 80 % of the data sheet's dense peak (the power limit is what remains),
// copies 85 %, NCCL's large collectives 80 % of NVLink and 90 % of a NIC a GPU. One hop of NCCL's low-latency
// protocol takes 1 to 2 us over NVLink, 5 over InfiniBand, a launch 10. The GPUs' memory is what their driver
// reports. Of the CPU all rates but network and hops are measured ones of two cores of an AMD EPYC (Zen 5).
const std::array kMachines{
    Machine{"h100", "H100 SXM, 8 a node, 400 Gbit/s each", 700e12, 1200e12, 2.8e12, 360e9, 45e9, 1.5e-6, 5e-6,
            10e-6, 79 * kGib, 2 * kGib, 8, true},
    Machine{"h200", "H200 SXM, 8 a node, 400 Gbit/s each", 700e12, 1200e12, 4.1e12, 360e9, 45e9, 1.5e-6, 5e-6,
            10e-6, 139 * kGib, 2 * kGib, 8, true},
    Machine{"b200", "B200 SXM, 8 a node, 400 Gbit/s each", 1500e12, 2800e12, 6.6e12, 720e9, 45e9, 1.5e-6,
            5e-6, 10e-6, 178 * kGib, 2 * kGib, 8, true},
    Machine{"a100", "A100 SXM 80 GB, 8 a node, 200 Gbit/s each", 240e12, 0, 1.7e12, 240e9, 22e9, 1.5e-6, 5e-6,
            10e-6, 79 * kGib, 2 * kGib, 8, true},
    Machine{"rtx4090", "RTX 4090, 4 a node on PCIe 4, 100 Gbit/s a node", 150e12, 300e12, 0.85e12, 20e9,
            2.8e9, 5e-6, 15e-6, 10e-6, 23 * kGib, 1 * kGib, 4, true},
    Machine{"cpu", "two cores of an AMD EPYC (Zen 5) a rank, 4 ranks a node", 0.88e12, 0, 20e9, 4e9, 1.2e9,
            2e-6, 20e-6, 5e-6, 24 * kGib, 1 * kGib, 4, false},
};

// Names are small letters and digits.
std::string lower_case(std::string text) {
    for (char& c : text)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    return text;
}

}  // namespace

std::span<const Machine> machines() {
    return kMachines;
}

const Machine& find_machine(const std::string& name) {
    const std::string lower = lower_case(name);
    const auto found = std::ranges::find(kMachines, lower, &Machine::name);
    if (found != kMachines.end()) return *found;
    std::vector<std::string> names;
    for (const Machine& machine : kMachines) names.push_back(machine.name);
    const std::string near = nearest(lower, names);
    throw UserError("no machine " + in_quotes(name) + " is known" +
                    (near.empty() ? "." : "; did you mean " + in_quotes(near) + "?") +
                    " Known: " + joined(names));
}

}  // namespace speedrun

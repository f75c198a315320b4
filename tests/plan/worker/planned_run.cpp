// A run as `speedrun train` has it, without its files, on as many ranks as mpirun starts.
//   plan_planned_run CONFIG [KEY=VALUE ...]
// Each rank prints what it cost as one JSON object a line.
#include <ATen/Parallel.h>
#include <malloc.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/make_communicator.h"
#include "data/shard.h"
#include "data/step_shapes.h"
#include "model/initialize.h"
#include "model/load_config.h"
#include "plan/rank_memory.h"
#include "train/trainer.h"

using namespace speedrun;

namespace {

// "VmHWM", "RssAnon", ... of this process, in bytes.
std::map<std::string, int64_t> memory_now() {
    std::map<std::string, int64_t> values;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("Rss") || line.starts_with("VmHWM"))
            values[line.substr(0, line.find(':'))] = std::stoll(line.substr(line.find(':') + 1)) * 1024;
    return values;
}

}  // namespace

int main(int argc, char** argv) {
    // Freed blocks of a MiB and more go back to the system. Otherwise glibc raises the limit itself, and its
    // heap keeps up to 55 MB, more or less by the order in which the threads free their blocks.
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    const Config config = load_config(argv[1], std::vector<std::string>(argv + 2, argv + argc));
    const LaunchEnvironment launch = read_launch_environment();
    at::set_num_threads(1);
    const auto train_shards = find_shards(config.data.train), val_shards = find_shards(config.data.val);
    require_enough_data(train_shards, data_layout(config.data), step_shapes(config));
    const auto communicator = make_communicator(launch, at::kCPU);
    const auto before = memory_now();
    GPT model(config, std::max(row_lengths(config).back(), config.data.val_micro_batch_tokens), at::kCPU);
    initialize(model.parameters(), config.model, config.runtime.seed);
    Trainer trainer(config, model, *communicator, train_shards, val_shards);
    Interrupt interrupt;
    trainer.run(nullptr, interrupt);
    const RankCosts costs = trainer.costs();
    std::puts(nlohmann::json{{"rank", launch.rank},
                             {"before", before},
                             {"after", memory_now()},
                             {"sent", costs.bytes_sent},
                             {"state", costs.optimizer_state_bytes},
                             {"activations", model.activation_bytes()}}
                  .dump()
                  .c_str());
    return 0;
}

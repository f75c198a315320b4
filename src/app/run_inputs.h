#pragma once
// What the ranks of a run read, and that all of them read the same.
#include <cxxopts.hpp>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "comm/launch.h"
#include "config/config.h"
#include "data/shard_identity.h"
#include "train/checkpoint/find.h"

namespace speedrun {

struct Shards {
    std::vector<std::filesystem::path> train, val;    // that the config's patterns match
    std::vector<ShardIdentity> train_read, val_read;  // the first of them, as far as the run reads them
};

// UserError where there are too few, or where one that the run reads is malformed.
Shards find_shards_of(const Config& config);

// The options of `train` that change what a run does, as one line: the same on all ranks.
std::string options_text(const cxxopts::ParseResult& options);

// Names and texts for Job::require_same: what a rank has found. `init`: initial weights, "" for none.
// `prefixes`: load_prefix_table().
std::map<std::string, std::string> facts_of_inputs(const Shards& shards, const std::filesystem::path& init,
                                                   const std::vector<int64_t>& prefixes,
                                                   const std::optional<Checkpoint>& checkpoint);

// The checkpoint that `--resume WHERE` means (choose_checkpoint), on every rank: rank 0 chooses it, and every
// byte of it is checked on each host. None where WHERE is "" or nothing is there yet.
std::optional<Checkpoint> agree_on_checkpoint(const std::string& where, const std::filesystem::path& run_dir,
                                              const LaunchEnvironment& launch, Communicator& communicator,
                                              std::vector<std::string>& notes);

}  // namespace speedrun

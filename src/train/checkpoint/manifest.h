#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/shard_identity.h"

namespace speedrun {

// checkpoint.json: everything of a run's state that is not a tensor, and what the files beside it must be.
struct CheckpointManifest {
    int64_t step = 0;    // steps finished
    int64_t tokens = 0;  // training tokens so far
    double train_time_ms = 0;
    double train_loss = 0;           // of the last step
    std::optional<double> val_loss;  // the last one
    LoaderPosition data;
    std::vector<ShardIdentity> train_shards, val_shards;  // that the run reads, in order
    int64_t world_size = 1, threads = 1;                  // threads: of all ranks together
    bool pending_gradients = false;             // some wait for Adam: there is a gradients file for each rank
    std::string config_hash, build;             // the config itself is config.json beside it
    uint64_t log_bytes = 0, metrics_bytes = 0;  // how far the run's own log and metrics had come

    struct File {
        uint64_t bytes = 0;
        std::string xxh64;  // of its bytes, hex
    };
    std::map<std::string, File> files;
};

// The text ends in a check of itself, so that no damaged manifest is believed.
std::string to_json(const CheckpointManifest& manifest);

// Throws UserError where the file cannot be read, is no manifest, or is damaged. Its files' names are those
// of files in a folder, never paths; all numbers are in the ranges that a run can give them.
CheckpointManifest read_manifest(const std::filesystem::path& path);

}  // namespace speedrun

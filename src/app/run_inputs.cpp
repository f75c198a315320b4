#include "app/run_inputs.h"

#include <array>

#include "app/resume.h"
#include "comm/gather_text.h"
#include "data/loader.h"
#include "train/grad_accum.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// The files of a checkpoint by their sizes and samples, its manifest by all of its bytes.
std::string checkpoint_text(const Checkpoint& checkpoint) {
    XxHash64 manifest;
    manifest.update(to_json(checkpoint.manifest));
    std::vector<fs::path> files;
    for (const auto& [name, file] : checkpoint.manifest.files) files.push_back(checkpoint.folder / name);
    return "after step " + std::to_string(checkpoint.manifest.step) + ", manifest " +
           hex64(manifest.digest()) + ", " + shards_text(identify_shards(files));
}

std::string hash_of(const std::vector<int64_t>& numbers) {
    XxHash64 hash;
    hash.update({reinterpret_cast<const char*>(numbers.data()), numbers.size() * sizeof(int64_t)});
    return hex64(hash.digest());
}

}  // namespace

Shards find_shards_of(const Config& config) {
    Shards shards{find_shards(config.data.train), find_shards(config.data.val), {}, {}};
    const int64_t train = require_enough_data(shards.train, data_layout(config.data), step_shapes(config));
    const int64_t val =
        ValLoader(shards.val, data_layout(config.data), val_row(config.data), config.data.val_tokens)
            .shards();
    shards.train_read = identify_shards(std::span(shards.train).first(static_cast<size_t>(train)));
    shards.val_read = identify_shards(std::span(shards.val).first(static_cast<size_t>(val)));
    return shards;
}

std::string options_text(const cxxopts::ParseResult& options) {
    std::string text = "--diagnostics " + options["diagnostics"].as<std::string>();
    for (const char* name : {"resume", "init"})
        if (options.count(name) > 0)
            text += std::string(" --") + name + " " + options[name].as<std::string>();
    for (const char* name : {"accept-changes", "overwrite"})
        if (options.count(name) > 0) text += std::string(" --") + name;
    return text;
}

std::map<std::string, std::string> facts_of_inputs(const Shards& shards, const fs::path& init,
                                                   const std::vector<int64_t>& prefixes,
                                                   const std::optional<Checkpoint>& checkpoint) {
    std::map<std::string, std::string> facts{{"training data", shards_text(shards.train_read)},
                                             {"validation data", shards_text(shards.val_read)}};
    if (!init.empty()) facts["initial weights"] = shards_text(identify_shards(std::array{init}));
    if (!prefixes.empty()) facts["prefixes of tokens"] = hash_of(prefixes);
    if (checkpoint) facts["checkpoint"] = checkpoint_text(*checkpoint);
    return facts;
}

std::optional<Checkpoint> agree_on_checkpoint(const std::string& where, const fs::path& run_dir,
                                              const LaunchEnvironment& launch, Communicator& communicator,
                                              std::vector<std::string>& notes) {
    if (where.empty()) return std::nullopt;
    const bool leads = launch.rank == 0;
    std::optional<Checkpoint> chosen;
    if (leads) chosen = choose_checkpoint(where, run_dir, notes);
    const fs::path folder =
        gather_text(communicator, chosen ? chosen->folder.string() : "", "checkpoint to resume").front();
    if (leads || folder.empty()) return chosen;
    if (launch.local_rank == 0) return open_checkpoint(folder);
    return Checkpoint{folder, read_manifest(folder / "checkpoint.json")};
}

}  // namespace speedrun

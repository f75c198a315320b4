#include <fmt/format.h>

#include <filesystem>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/export/hf_config.h"
#include "app/export/hf_tokenizer.h"
#include "app/session.h"
#include "app/verbs.h"
#include "model/weights.h"
#include "plan/rank_memory.h"
#include "speedrun_export_files.h"
#include "util/atomic_file.h"
#include "util/files.h"

namespace speedrun {
namespace {

cxxopts::Options export_options() {
    cxxopts::Options options("speedrun export",
                             "Writes saved weights as a model of Hugging Face's transformers: "
                             "AutoModelForCausalLM.from_pretrained(DIR, trust_remote_code=True).");
    auto add = options.add_options();
    add("hf", "folder for the model, new or empty", cxxopts::value<std::string>());
    add("run-dir", "a run's folder: its config.json and weights.safetensors", cxxopts::value<std::string>());
    add("config", "config to use instead", cxxopts::value<std::string>());
    add("weights", "weights to use instead", cxxopts::value<std::string>());
    add("tokenizer", "folder with GPT-2's vocab.bpe and encoder.json",
        cxxopts::value<std::string>()->default_value("data/tokenizer"));
    add("set", "override a value of the config", cxxopts::value<std::vector<std::string>>());
    return options;
}

void require_new_or_empty(const std::filesystem::path& folder) {
    const files::Kind kind = files::kind(folder);
    if (kind == files::Kind::none) return;
    if (kind != files::Kind::folder)
        throw UserError("export: --hf " + folder.string() + ": found a file, expected a new or empty folder");
    const auto found = files::list(folder);
    if (!found.empty())
        throw UserError("export: --hf " + folder.string() + ": found " + found.front().filename().string() +
                        " there, expected a new or empty folder");
}

std::string model_card(const Config& config, int64_t parameters) {
    const std::string which =
        config.record > 0 ? fmt::format("the config of record {}", config.record) : "a config of its own";
    return fmt::format(fmt::runtime(kExport_README_md), fmt::arg("parameters", parameters),
                       fmt::arg("config", which));
}

// config.json comes last: a folder without it is not whole.
void write_model(const std::filesystem::path& folder, const Config& config, GPT& model,
                 const std::filesystem::path& tokenizer, const HfText& text) {
    const auto write = [&](const char* name, std::string_view content) {
        write_atomically(folder / name, content);
    };
    files::make_folders(folder);
    save_weights(model.parameters(), folder / "model.safetensors");
    write("tokenizer.json", hf_tokenizer_json(tokenizer, text.end_of_text));
    write("tokenizer_config.json", hf_tokenizer_config_json(text.context));
    write("configuration_speedrun.py", kExport_configuration_speedrun_py);
    write("modeling_speedrun.py", kExport_modeling_speedrun_py);
    write("README.md", model_card(config, model.parameters().count()));
    write("generation_config.json", hf_generation_config_json(config, text.end_of_text));
    const StepSettings settings = final_settings(config, model);
    write("config.json", hf_config_json(config, model, settings, text));
}

}  // namespace

int run_export(int argc, char** argv) {
    auto specification = export_options();
    const auto parsed = parse_verb(specification, argc, argv, {"hf"});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    const auto option = [&](const char* name) { return value_or_empty<std::string>(options, name); };
    const std::filesystem::path folder(option("hf")), tokenizer(options["tokenizer"].as<std::string>());
    require_new_or_empty(folder);
    const SavedModel saved = find_saved_model(option("run-dir"), option("config"), option("weights"),
                                              value_or_empty<std::vector<std::string>>(options, "set"));
    const Config& config = saved.config;
    const HfText text{.end_of_text = load_tokenizer(tokenizer, config).end_of_text(),
                      .context = row_lengths(config).back()};
    set_threads(config.runtime);
    const auto model = make_model(config, saved.weights, 1, choose_device(config.runtime));
    write_model(folder, config, *model, tokenizer, text);
    fmt::print("{}: {} parameters\n", folder.string(), model->parameters().count());
    return 0;
}

}  // namespace speedrun

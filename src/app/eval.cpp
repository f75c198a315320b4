#include <fmt/format.h>

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/session.h"
#include "app/verbs.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

struct Evaluation {
    double loss = 0;  // nats a token
    int64_t tokens = 0;
    std::optional<int64_t> bytes;  // of the text that the tokens stand for

    double bits_per_byte() const {
        return loss * static_cast<double>(tokens) / (std::numbers::ln2 * static_cast<double>(*bytes));
    }
};

cxxopts::Options eval_options() {
    cxxopts::Options options("speedrun eval", "Validation loss of saved weights.");
    auto add = options.add_options();
    add("run-dir", "a run's folder: its config.json and weights.safetensors", cxxopts::value<std::string>());
    add("config", "config to use instead", cxxopts::value<std::string>());
    add("weights", "weights to use instead", cxxopts::value<std::string>());
    add("set", "override a value, such as data.val_tokens=65536", cxxopts::value<std::vector<std::string>>());
    add("tokenizer", "folder with GPT-2's vocab.bpe and encoder.json: bits per byte too",
        cxxopts::value<std::string>());
    add("json", "print one JSON object");
    return options;
}

// Bytes of the tokens that are predicted. End-of-text, between documents, stands for none; its loss counts.
int64_t bytes_of_targets(const ValLoader& loader, const Tokenizer& tokenizer) {
    int64_t bytes = 0;
    for (int64_t i = 0; i < loader.size(); ++i)
        for (const int64_t token : loader.at(i).targets)
            if (token != tokenizer.end_of_text()) bytes += std::ssize(tokenizer.token_bytes(token));
    return bytes;
}

Evaluation evaluate(const SavedModel& saved, const std::string& tokenizer_folder) {
    const Config& config = saved.config;
    std::optional<Tokenizer> tokenizer;
    if (!tokenizer_folder.empty()) tokenizer = load_tokenizer(tokenizer_folder, config);
    set_threads(config.runtime);
    const ValLoader loader(find_shards(config.data.val), data_layout(config.data), val_row(config.data),
                           config.data.val_tokens);
    const auto model =
        make_model(config, saved.weights, config.data.val_micro_batch_tokens, choose_device(config.runtime));
    Evaluation found{
        .loss = validate(*model, loader, final_settings(config, *model), *make_self_communicator()),
        .tokens = config.data.val_tokens,
        .bytes = {}};
    if (tokenizer) found.bytes = bytes_of_targets(loader, *tokenizer);
    return found;
}

std::string eval_text(const Evaluation& found) {
    std::string text = fmt::format("val_loss:{:.6f} val_tokens:{}", found.loss, found.tokens);
    if (found.bytes)
        text += fmt::format(" val_bytes:{} bits_per_byte:{:.6f}", *found.bytes, found.bits_per_byte());
    return text;
}

std::string eval_json(const Evaluation& found) {
    nlohmann::ordered_json object{{"val_loss", found.loss}, {"val_tokens", found.tokens}};
    if (found.bytes) {
        object["val_bytes"] = *found.bytes;
        object["bits_per_byte"] = found.bits_per_byte();
    }
    return object.dump();
}

}  // namespace

int run_eval(int argc, char** argv) {
    auto specification = eval_options();
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    const auto text = [&](const char* name) { return value_or_empty<std::string>(options, name); };
    const SavedModel saved = find_saved_model(text("run-dir"), text("config"), text("weights"),
                                              value_or_empty<std::vector<std::string>>(options, "set"));
    const Evaluation found = evaluate(saved, text("tokenizer"));
    std::cout << (options.count("json") > 0 ? eval_json(found) : eval_text(found)) << "\n";
    if (!std::isfinite(found.loss))
        throw UserError(saved.weights.string() + ": the validation loss of these weights is not finite");
    return 0;
}

}  // namespace speedrun

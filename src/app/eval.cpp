#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/session.h"
#include "app/verbs.h"
#include "train/trainer.h"

namespace speedrun {

int run_eval(int argc, char** argv) {
    cxxopts::Options specification("speedrun eval", "Validation loss of saved weights.");
    auto add = specification.add_options();
    add("run-dir", "a run's folder: its config.json and weights.safetensors", cxxopts::value<std::string>());
    add("config", "config to use instead", cxxopts::value<std::string>());
    add("weights", "weights to use instead", cxxopts::value<std::string>());
    add("set", "override a value, such as data.val_tokens=65536", cxxopts::value<std::vector<std::string>>());
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    const auto text = [&](const char* name) { return value_or_empty<std::string>(options, name); };
    const SavedModel saved = find_saved_model(text("run-dir"), text("config"), text("weights"),
                                              value_or_empty<std::vector<std::string>>(options, "set"));
    const Config& config = saved.config;
    set_threads(config.runtime);
    const ValLoader loader(find_shards(config.data.val), data_layout(config.data), val_row(config.data),
                           config.data.val_tokens);
    const auto model =
        make_model(config, saved.weights, config.data.val_micro_batch_tokens, choose_device(config.runtime));
    const double loss = validate(*model, loader, final_settings(config, *model), *make_self_communicator());
    std::printf("val_loss:%.6f val_tokens:%lld\n", loss, static_cast<long long>(config.data.val_tokens));
    if (!std::isfinite(loss))
        throw UserError(saved.weights.string() + ": the validation loss of these weights is not finite");
    return 0;
}

}  // namespace speedrun

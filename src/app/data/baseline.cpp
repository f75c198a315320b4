#include <iomanip>
#include <iostream>
#include <string>

#include "app/arguments.h"
#include "app/verbs.h"
#include "data/baseline.h"
#include "data/shard.h"

namespace speedrun {

int run_data_baseline(int argc, char** argv) {
    cxxopts::Options options(
        "speedrun data baseline",
        "Validation loss (nats per token) of counting models, to compare a trained model with.");
    options.add_options()                                                          //
        ("train", "glob of training shards", cxxopts::value<std::string>())        //
        ("val", "glob of validation shards", cxxopts::value<std::string>())        //
        ("vocab-size", "", cxxopts::value<std::string>()->default_value("50257"))  //
        ("json", "print JSON");
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    for (const char* needed : {"train", "val"}) {
        if (args.count(needed) == 0)
            throw UserError(std::string("data baseline: --") + needed + " is missing");
    }
    const int64_t vocab = whole<int64_t>(args, "vocab-size");
    if (vocab < 1 || vocab > 65536) {
        throw UserError("--vocab-size is " + std::to_string(vocab) + ", expected 1 to 65536");
    }
    const auto losses = count_baselines(find_shards(args["train"].as<std::string>()),
                                        find_shards(args["val"].as<std::string>()), vocab);
    std::cout << std::fixed << std::setprecision(4);
    if (args.count("json") > 0) {
        std::cout << "{\"unigram\": " << losses.unigram << ", \"bigram\": " << losses.bigram
                  << ", \"train_tokens\": " << losses.train_tokens
                  << ", \"val_tokens\": " << losses.val_tokens << "}\n";
        return 0;
    }
    std::cout << "unigram, add-one smoothing:         " << losses.unigram << " nats/token\n"
              << "bigram, absolute discounting:       " << losses.bigram << " nats/token\n"
              << "(" << losses.train_tokens << " training tokens, " << losses.val_tokens
              << " validation tokens)\n";
    return 0;
}

}  // namespace speedrun

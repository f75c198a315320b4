#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/verbs.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"

namespace speedrun {
namespace {

cxxopts::Options make_options() {
    cxxopts::Options options(
        "speedrun data tokenize",
        "Writes text files as shards of GPT-2 tokens, end-of-text before every document.");
    options.positional_help("FILES...");
    options.add_options()                                                                       //
        ("tokenizer", "folder with vocab.bpe and encoder.json", cxxopts::value<std::string>())  //
        ("out", "prefix of the shards: PREFIX_000000.bin, ...", cxxopts::value<std::string>())  //
        ("shard-tokens", "most tokens in a shard; documents are not split over shards",         //
         cxxopts::value<int64_t>()->default_value("100000000"))                                 //
        ("document-separator",
         "\"file\": each file is a document; else documents end at lines that equal this",
         cxxopts::value<std::string>()->default_value("file"))               //
        ("force", "overwrite shards of this prefix")                         //
        ("files", "text files", cxxopts::value<std::vector<std::string>>())  //
        ("help", "this text");
    options.parse_positional({"files"});
    return options;
}

}  // namespace

int run_data_tokenize(int argc, char** argv) {
    cxxopts::Options options = make_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    for (const char* needed : {"tokenizer", "out", "files"}) {
        if (args.count(needed) == 0)
            throw UserError(std::string("data tokenize: --") + needed + " is missing");
    }
    const int64_t shard_tokens = args["shard-tokens"].as<int64_t>();
    if (shard_tokens < 1)
        throw UserError("--shard-tokens is " + std::to_string(shard_tokens) + ", expected at least 1");
    const auto separator = args["document-separator"].as<std::string>();

    const Tokenizer tokenizer(args["tokenizer"].as<std::string>());
    ShardWriter writer(tokenizer, args["out"].as<std::string>(), shard_tokens,
                       args.count("force") > 0 ? Overwrite::yes : Overwrite::no);
    for (const auto& file : args["files"].as<std::vector<std::string>>()) {
        for_each_document(file, separator == "file" ? std::nullopt : std::optional(separator),
                          [&](std::string_view document) { writer.add(document); });
    }
    const auto summary = writer.finish();
    std::cout << summary.documents << " documents, " << summary.bytes << " bytes, " << summary.tokens
              << " tokens in " << summary.files.size() << " shard(s), the first "
              << summary.files.front().string() << "\n";
    return 0;
}

}  // namespace speedrun

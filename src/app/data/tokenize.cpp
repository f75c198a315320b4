#include <filesystem>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/verbs.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"
#include "util/diagnostics.h"
#include "util/text.h"

namespace speedrun {
namespace {

cxxopts::Options tokenize_options() {
    cxxopts::Options options(
        "speedrun data tokenize",
        "Writes text files as shards of GPT-2 tokens, end-of-text before every document.");
    options.positional_help("FILES...");
    options.add_options()                                                                       //
        ("tokenizer", "folder with vocab.bpe and encoder.json", cxxopts::value<std::string>())  //
        ("out", "prefix of the shards: PREFIX_000000.bin, ...", cxxopts::value<std::string>())  //
        ("shard-tokens", "most tokens in a shard; documents are not split over shards",         //
         cxxopts::value<std::string>()->default_value("100000000"))                             //
        ("document-separator",
         "\"file\": each file is a document; else documents end at lines that equal this",
         cxxopts::value<std::string>()->default_value("file"))  //
        ("force", "overwrite shards of this prefix")            //
        ("files", "text files", cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"files"});
    return options;
}

// Texts without a document are passed over with a note; where none has one, that is an error.
void write_texts(const std::vector<std::string>& texts, const std::optional<std::string>& separator,
                 ShardWriter& writer) {
    TextDocuments all;
    for (const auto& text : texts) {
        const TextDocuments found =
            for_each_document(text, separator, [&](std::string_view document) { writer.add(document); });
        if (found.documents == 0) warn("{}: holds no document, and is passed over", text);
        all.documents += found.documents;
        all.separators += found.separators;
    }
    if (all.documents == 0) throw UserError("data tokenize: the texts hold no document");
    if (separator && all.separators == 0)
        warn("no line of the texts equals the document separator {}: each text is one document",
             in_quotes(*separator));
}

}  // namespace

int run_data_tokenize(int argc, char** argv) {
    cxxopts::Options options = tokenize_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    for (const char* needed : {"tokenizer", "out", "files"}) {
        if (args.count(needed) == 0)
            throw UserError(std::string("data tokenize: --") + needed + " is missing");
    }
    const int64_t shard_tokens = whole<int64_t>(args, "shard-tokens");
    if (shard_tokens < 1)
        throw UserError("--shard-tokens is " + std::to_string(shard_tokens) + ", expected at least 1");
    const auto separator = args["document-separator"].as<std::string>();

    const Tokenizer tokenizer(args["tokenizer"].as<std::string>());
    ShardWriter writer(tokenizer, args["out"].as<std::string>(), shard_tokens,
                       args.count("force") > 0 ? Overwrite::yes : Overwrite::no);
    write_texts(args["files"].as<std::vector<std::string>>(),
                separator == "file" ? std::nullopt : std::optional(separator), writer);
    const auto summary = writer.finish();
    std::cout << summary.documents << " documents, " << summary.bytes << " bytes, " << summary.tokens
              << " tokens in " << summary.files.size() << " shard(s), the first "
              << summary.files.front().string() << "\n";
    return 0;
}

}  // namespace speedrun

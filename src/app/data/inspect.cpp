#include <algorithm>
#include <bit>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/verbs.h"
#include "data/indexed_shard.h"
#include "data/tokenizer.h"
#include "util/json_document.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

constexpr size_t kSampleTokens = 80;

// What there is to say of one well-formed shard.
struct ShardReport {
    std::string file;
    int64_t tokens = 0, before_first_document = 0, largest_token = 0;
    std::vector<int64_t> lengths;  // of the documents, sorted
    std::string sample;            // start of the first document; "" without a tokenizer
};

ShardReport inspect(const std::filesystem::path& file, const DataLayout& layout,
                    const std::optional<Tokenizer>& tokenizer) {
    const auto indexed = load_indexed_shard(file, layout);
    const auto tokens = indexed->shard.tokens();
    ShardReport report{file.string(),
                       std::ssize(tokens),
                       indexed->starts.front(),
                       *std::ranges::max_element(tokens),
                       {},
                       {}};
    for (size_t i = 0; i < indexed->starts.size(); ++i) {
        const size_t end = i + 1 < indexed->starts.size() ? indexed->starts[i + 1] : tokens.size();
        report.lengths.push_back(static_cast<int64_t>(end - indexed->starts[i]));
    }
    if (tokenizer) {
        const auto length = std::min(kSampleTokens, static_cast<size_t>(report.lengths.front()));
        report.sample = tokenizer->decode(tokens.subspan(indexed->starts.front(), length));
    }
    std::ranges::sort(report.lengths);
    return report;
}

int64_t quantile(const std::vector<int64_t>& sorted, double q) {
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

// Documents of at least `from` and less than 2 * from tokens.
struct Bin {
    int64_t from, documents;
};

std::vector<Bin> histogram(const std::vector<int64_t>& sorted) {
    std::vector<Bin> bins;
    for (const int64_t length : sorted) {
        const auto from = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(length)));
        if (bins.empty() || bins.back().from != from) bins.push_back({from, 0});
        ++bins.back().documents;
    }
    return bins;
}

std::string text_of(const nlohmann::ordered_json& json, int indent) {
    return escape_controls(json.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace));
}

nlohmann::ordered_json to_json(const ShardReport& r) {
    nlohmann::ordered_json bins = nlohmann::ordered_json::array();
    for (const Bin& bin : histogram(r.lengths))
        bins.push_back({{"from", bin.from}, {"documents", bin.documents}});
    nlohmann::ordered_json out{{"file", r.file},
                               {"tokens", r.tokens},
                               {"documents", r.lengths.size()},
                               {"tokens_before_first_document", r.before_first_document},
                               {"largest_token", r.largest_token},
                               {"document_tokens",
                                {{"min", r.lengths.front()},
                                 {"median", quantile(r.lengths, 0.5)},
                                 {"p90", quantile(r.lengths, 0.9)},
                                 {"max", r.lengths.back()}}},
                               {"histogram", bins}};
    if (!r.sample.empty()) out["sample"] = r.sample;
    return out;
}

void print(const ShardReport& r) {
    std::cout << terminal_text(r.file) << ": " << r.tokens << " tokens, " << r.lengths.size()
              << " documents, largest token " << r.largest_token << "\n";
    if (r.before_first_document > 0) {
        std::cout << "  " << r.before_first_document
                  << " tokens before the first document: training skips them\n";
    }
    std::cout << "  document tokens: min " << r.lengths.front() << ", median " << quantile(r.lengths, 0.5)
              << ", 90 % " << quantile(r.lengths, 0.9) << ", max " << r.lengths.back() << "\n";
    const auto bins = histogram(r.lengths);
    const int64_t most = std::ranges::max(bins, {}, &Bin::documents).documents;
    for (const Bin& bin : bins) {
        const std::string from = std::to_string(bin.from), count = std::to_string(bin.documents);
        std::cout << "  " << std::string(10 - std::min<size_t>(10, from.size()), ' ') << from << "+ "
                  << std::string(static_cast<size_t>(40 * bin.documents / most), '#') << " " << count << "\n";
    }
    if (!r.sample.empty()) std::cout << "  begins: " << text_of(r.sample, -1) << "\n";
}

cxxopts::Options inspect_options() {
    cxxopts::Options options("speedrun data inspect",
                             "Checks shards (format, size, vocabulary, document starts) and describes them.");
    options.positional_help("FILES|GLOBS...");
    options.add_options()  //
        ("tokenizer", "folder with vocab.bpe and encoder.json: decode a sample",
         cxxopts::value<std::string>())                                                                    //
        ("vocab-size", "every token must be less", cxxopts::value<std::string>()->default_value("50257"))  //
        ("bos-id", "token that starts a document", cxxopts::value<std::string>()->default_value("50256"))  //
        ("json", "print one JSON array")                                                                   //
        ("files", "shards", cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"files"});
    return options;
}

}  // namespace

int run_data_inspect(int argc, char** argv) {
    cxxopts::Options options = inspect_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    if (args.count("files") == 0) throw UserError("data inspect: which shards?" + help_hint(options));
    std::optional<Tokenizer> tokenizer;
    if (args.count("tokenizer") > 0) tokenizer.emplace(args["tokenizer"].as<std::string>());
    DataLayout layout;
    layout.vocab_size = whole<int64_t>(args, "vocab-size");
    layout.bos_id = whole<uint16_t>(args, "bos-id");
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    for (const auto& pattern : args["files"].as<std::vector<std::string>>()) {
        for (const auto& file : find_shards(pattern)) {
            const ShardReport report = inspect(file, layout, tokenizer);
            if (args.count("json") > 0) {
                all.push_back(to_json(report));
            } else {
                print(report);
            }
        }
    }
    if (args.count("json") > 0) std::cout << text_of(all, 2) << "\n";
    return 0;
}

}  // namespace speedrun

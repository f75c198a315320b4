#include <algorithm>
#include <chrono>
#include <iomanip>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/verbs.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "util/files.h"

namespace speedrun {
namespace {

// Seconds of the fastest of `runs` calls: what the code takes when nothing else runs.
template <typename Work>
double fastest(int64_t runs, Work&& work) {
    double best = std::numeric_limits<double>::infinity();
    for (int64_t i = 0; i < runs; ++i) {
        const auto start = std::chrono::steady_clock::now();
        work();
        best =
            std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return best;
}

void report(const std::string& what, double bytes, double seconds, const char* unit, double unit_bytes) {
    std::cout << what << ": " << std::fixed << std::setprecision(1) << bytes / seconds / unit_bytes << " "
              << unit << " (" << seconds * 1e3 << " ms)\n";
}

void bench_shard(const std::string& file, uint16_t bos, int64_t runs) {
    size_t documents = 0;
    const Shard shard(file);
    const auto bytes = static_cast<double>(shard.tokens().size_bytes());
    const double seconds = fastest(runs, [&] { documents = bos_index(shard.tokens(), bos).size(); });
    report("document index, " + std::to_string(documents) + " documents", bytes, seconds, "GB/s", 1e9);
    const double fresh = fastest(runs, [&] { documents = bos_index(Shard(file).tokens(), bos).size(); });
    report("the same with mapping the file", bytes, fresh, "GB/s", 1e9);
    const double checked = fastest(runs, [&] { shard.check_tokens(65536); });
    report("vocabulary check", bytes, checked, "GB/s", 1e9);
}

void bench_text(const std::string& folder, const std::string& file, int64_t runs) {
    const double start_up = fastest(runs, [&] { const Tokenizer fresh(folder); });
    std::cout << "tokenizer start-up: " << std::fixed << std::setprecision(1) << start_up * 1e3 << " ms\n";
    const Tokenizer tokenizer(folder);
    constexpr uint64_t most_bytes = uint64_t{1} << 32;
    const std::string text = files::read(file, most_bytes);
    if (text.empty()) throw UserError(file + ": is empty");
    std::vector<uint16_t> tokens;
    const double seconds = fastest(runs, [&] {
        tokens.clear();
        tokenizer.encode(text, tokens);
    });
    report("tokenizer, " + std::to_string(tokens.size()) + " tokens", static_cast<double>(text.size()),
           seconds, "MB/s", 1e6);
}

}  // namespace

int run_data_bench(int argc, char** argv) {
    cxxopts::Options options("speedrun data bench",
                             "Times the tokenizer and the document index; the fastest run counts.");
    options.add_options()                                                                       //
        ("tokenizer", "folder with vocab.bpe and encoder.json", cxxopts::value<std::string>())  //
        ("text", "text file to tokenize", cxxopts::value<std::string>())                        //
        ("shard", "shard to index", cxxopts::value<std::string>())                              //
        ("bos-id", "", cxxopts::value<std::string>()->default_value("50256"))                   //
        ("runs", "", cxxopts::value<std::string>()->default_value("10"));
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    const bool text = args.count("tokenizer") > 0 && args.count("text") > 0, shard = args.count("shard") > 0;
    if (!text && !shard) throw UserError("data bench: give --shard, or --tokenizer and --text");
    const int64_t runs = whole<int64_t>(args, "runs");
    if (runs < 1) throw UserError("--runs is " + std::to_string(runs) + ", expected at least 1");
    if (shard) bench_shard(args["shard"].as<std::string>(), whole<uint16_t>(args, "bos-id"), runs);
    if (text) bench_text(args["tokenizer"].as<std::string>(), args["text"].as<std::string>(), runs);
    return 0;
}

}  // namespace speedrun

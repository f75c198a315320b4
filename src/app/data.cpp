#include <iostream>
#include <string>
#include <string_view>

#include "app/data_verbs.h"
#include "app/verbs.h"
#include "util/error.h"

namespace speedrun {
namespace {

struct Part {
    std::string_view name;
    int (*run)(int, char**);
    std::string_view summary;
};

constexpr Part kParts[] = {
    {"tokenize", run_data_tokenize, "text files -> shards of GPT-2 tokens"},
    {"inspect", run_data_inspect, "check shards; counts, document lengths, a decoded sample"},
    {"baseline", run_data_baseline, "validation loss of a unigram and a bigram model"},
    {"bench", run_data_bench, "speed of the tokenizer and of the document index"},
};

std::string usage() {
    std::string text = "usage: speedrun data PART [--help] ...\n";
    for (const Part& part : kParts) {
        text.append("  ")
            .append(part.name)
            .append(12 - part.name.size(), ' ')
            .append(part.summary)
            .append("\n");
    }
    return text;
}

}  // namespace

int run_data(int argc, char** argv) {
    if (argc < 2) throw UserError("data: which part?\n" + usage());
    const std::string_view name = argv[1];
    if (name == "--help" || name == "-h") {
        std::cout << usage();
        return 0;
    }
    for (const Part& part : kParts) {
        if (part.name == name) return part.run(argc - 1, argv + 1);
    }
    throw UserError("data: no part \"" + std::string(name) + "\"\n" + usage());
}

}  // namespace speedrun

#include "app/data/verbs.h"
#include "app/verb_table.h"
#include "app/verbs.h"

namespace speedrun {
namespace {

constexpr Verb kParts[] = {
    {"tokenize", run_data_tokenize, "text files -> shards of GPT-2 tokens"},
    {"inspect", run_data_inspect, "check shards; counts, document lengths, a decoded sample"},
    {"baseline", run_data_baseline, "validation loss of a unigram and a bigram model"},
    {"bench", run_data_bench, "speed of the tokenizer and of the document index"},
};

}  // namespace

int run_data(int argc, char** argv) {
    return run_part(kParts, argc, argv);
}

}  // namespace speedrun

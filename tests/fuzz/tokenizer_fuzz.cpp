// Any vocabulary is read or refused by a UserError; one that is read gives back every text. An input's parts:
// vocab.bpe, encoder.json, text.
#include <string>

#include "data/tokenizer.h"
#include "fuzz_files.h"

namespace speedrun {
namespace {

void check_tokenizer(std::string_view rest) {
    static const FuzzFolder folder;
    folder.write("vocab.bpe", next_part(rest));
    folder.write("encoder.json", next_part(rest));
    try {
        const Tokenizer tokenizer(folder.path());
        const auto tokens = tokenizer.encode(rest);
        check(tokenizer.decode(tokens) == rest, "a text comes back from its tokens");
        check(tokens.size() <= rest.size(), "a token has a byte at least");
    } catch (const UserError& error) {
        check_message(error.what());
    }
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::check_tokenizer(speedrun::as_text(bytes, size));
    return 0;
}

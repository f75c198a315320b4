#include <cstdio>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/session.h"
#include "app/verbs.h"
#include "data/tokenizer.h"
#include "plan/rank_memory.h"
#include "train/sample.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

cxxopts::Options generate_options() {
    cxxopts::Options options("speedrun generate", "Sample text from saved weights.");
    auto add = options.add_options();
    add("run-dir", "a run's folder: its config.json and weights.safetensors", cxxopts::value<std::string>());
    add("config", "config to use instead", cxxopts::value<std::string>());
    add("weights", "weights to use instead", cxxopts::value<std::string>());
    add("tokenizer", "folder with GPT-2's vocab.bpe and encoder.json",
        cxxopts::value<std::string>()->default_value("data/tokenizer"));
    add("prompt", "text to continue", cxxopts::value<std::string>()->default_value(""));
    add("tokens", "tokens to generate", cxxopts::value<std::string>()->default_value("200"));
    add("temperature", "0: always the likeliest token", cxxopts::value<std::string>()->default_value("0.8"));
    add("top-k", "draw from the k likeliest tokens; 0: from all",
        cxxopts::value<std::string>()->default_value("50"));
    add("seed", "of the draw", cxxopts::value<std::string>()->default_value("1"));
    add("set", "override a value of the config", cxxopts::value<std::vector<std::string>>());
    return options;
}

SampleOptions sample_options(const cxxopts::ParseResult& options, const Config& config,
                             const Tokenizer& tokenizer) {
    const SampleOptions sampling{.tokens = whole<int64_t>(options, "tokens"),
                                 .temperature = decimal(options, "temperature"),
                                 .top_k = whole<int64_t>(options, "top-k"),
                                 .context = row_lengths(config).back(),
                                 .seed = whole<uint64_t>(options, "seed"),
                                 .vocab_size = static_cast<int32_t>(config.data.vocab_size),
                                 .stop_token = tokenizer.end_of_text()};
    if (sampling.tokens < 1) throw UserError("generate: --tokens must be positive");
    if (!(sampling.temperature >= 0)) throw UserError("generate: --temperature must be 0 or more");
    if (sampling.top_k < 0) throw UserError("generate: --top-k must be 0 or more");
    return sampling;
}

// Prints tokens as they come, holding back the bytes of a character that is not whole yet.
class TextStream {
  public:
    explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
    void operator()(int32_t token) {
        pending_ += tokenizer_.token_bytes(token);
        const size_t whole = whole_characters();
        std::fwrite(pending_.data(), 1, whole, stdout);
        std::fflush(stdout);
        pending_.erase(0, whole);
    }
    ~TextStream() { std::fwrite(pending_.data(), 1, pending_.size(), stdout); }
    TextStream(const TextStream&) = delete;
    TextStream& operator=(const TextStream&) = delete;

  private:
    size_t whole_characters() const {
        for (size_t back = 1; back <= std::min<size_t>(3, pending_.size()); ++back) {
            const char byte = pending_[pending_.size() - back];
            if (continues_character(byte)) continue;
            return utf8_length(byte) > back ? pending_.size() - back : pending_.size();
        }
        return pending_.size();
    }
    const Tokenizer& tokenizer_;
    std::string pending_;
};

int generate(const cxxopts::ParseResult& options) {
    const auto text = [&](const char* name) { return value_or_empty<std::string>(options, name); };
    const SavedModel saved = find_saved_model(text("run-dir"), text("config"), text("weights"),
                                              value_or_empty<std::vector<std::string>>(options, "set"));
    const Tokenizer tokenizer = load_tokenizer(options["tokenizer"].as<std::string>(), saved.config);
    const SampleOptions sampling = sample_options(options, saved.config, tokenizer);
    set_threads(saved.config.runtime);
    const auto model =
        make_model(saved.config, saved.weights, sampling.context, choose_device(saved.config.runtime));

    const std::string prompt_text = text("prompt");
    std::vector<int32_t> prompt{tokenizer.end_of_text()};  // every document starts with it
    for (const uint16_t token : tokenizer.encode(prompt_text)) prompt.push_back(token);
    std::fputs(prompt_text.c_str(), stdout);
    {
        TextStream stream(tokenizer);
        sample(*model, final_settings(saved.config, *model), std::move(prompt), sampling, std::ref(stream));
    }
    std::puts("");
    return 0;
}

}  // namespace

int run_generate(int argc, char** argv) {
    auto specification = generate_options();
    const auto parsed = parse_verb(specification, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& options = *parsed;
    return generate(options);
}

}  // namespace speedrun

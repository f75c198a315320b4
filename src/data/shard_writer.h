#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/shard.h"
#include "data/tokenizer.h"

namespace speedrun {

struct TextDocuments {
    int64_t documents = 0, separators = 0;  // that a file had
};

// Calls `visit` with each document of a text file: the whole file, or, with a separator, the runs of lines
// between lines that equal it, whatever ends them (runs of nothing are skipped). UserError if the file cannot
// be read.
TextDocuments for_each_document(const std::filesystem::path& file,
                                const std::optional<std::string>& separator,
                                const std::function<void(std::string_view)>& visit);

// Writes documents, each led by end_of_text(), as PREFIX_000000.bin, PREFIX_000001.bin, ... A shard holds
// whole documents and at most `shard_tokens` tokens, or one document that is longer. Until finish() the
// shards have other names: without it nothing of them stays, and what was there before is as it was.
class ShardWriter {
  public:
    // UserError if a shard of that prefix exists and is not to be overwritten, or the folder does not exist.
    ShardWriter(const Tokenizer& tokenizer, std::string prefix, int64_t shard_tokens, Overwrite overwrite);
    ~ShardWriter();
    ShardWriter(const ShardWriter&) = delete;
    ShardWriter& operator=(const ShardWriter&) = delete;

    void add(std::string_view document);

    struct Summary {
        int64_t documents = 0, tokens = 0, bytes = 0;
        std::vector<std::filesystem::path> files;
    };
    // Writes what is left, gives the shards their names, and removes those of that prefix that an earlier,
    // longer run left.
    Summary finish();

  private:
    void flush();
    void require_free(const std::filesystem::path& name) const;
    std::filesystem::path file(size_t index) const;
    std::filesystem::path unnamed(size_t index) const;  // file(index) until finish()

    const Tokenizer& tokenizer_;
    std::string prefix_;
    int64_t shard_tokens_;
    Overwrite overwrite_;
    std::vector<uint16_t> pending_, document_;
    Summary summary_;
};

}  // namespace speedrun

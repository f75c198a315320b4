#include "data/shard_writer.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "util/error.h"
#include "util/read_file.h"

namespace speedrun {

void for_each_document(const std::filesystem::path& file, const std::optional<std::string>& separator,
                       const std::function<void(std::string_view)>& visit) {
    if (!std::filesystem::is_regular_file(file)) throw UserError(file.string() + ": no such text file");
    const std::string bytes = read_file(file, std::numeric_limits<size_t>::max());
    const std::string_view text = bytes;
    bool any = false;
    const auto emit = [&](size_t begin, size_t end) {
        if (begin == end) return;
        any = true;
        visit(text.substr(begin, end - begin));
    };
    size_t begin = 0;
    for (size_t line = 0; separator && line < text.size();) {
        const size_t end = std::min(text.find('\n', line), text.size());
        const size_t next = std::min(end + 1, text.size());
        if (text.substr(line, end - line) == *separator) {
            emit(begin, line);
            begin = next;
        }
        line = next;
    }
    emit(begin, text.size());
    if (!any)
        throw UserError(file.string() + ": holds no document (" + std::to_string(text.size()) + " bytes)");
}

ShardWriter::ShardWriter(const Tokenizer& tokenizer, std::string prefix, int64_t shard_tokens,
                         Overwrite overwrite)
    : tokenizer_(tokenizer), prefix_(std::move(prefix)), shard_tokens_(shard_tokens), overwrite_(overwrite) {
    check(shard_tokens_ > 0, "a shard of no tokens");
    const auto folder = file(0).parent_path();
    if (!folder.empty() && !std::filesystem::is_directory(folder)) {
        throw UserError(folder.string() + ": no such folder to write shards to");
    }
    if (overwrite_ == Overwrite::no && std::filesystem::exists(file(0))) {
        throw UserError(file(0).string() + ": exists already; --force overwrites the shards of this prefix");
    }
}

std::filesystem::path ShardWriter::file(size_t index) const {
    return fmt::format("{}_{:06}.bin", prefix_, index);
}

void ShardWriter::add(std::string_view document) {
    document_.assign(1, tokenizer_.end_of_text());
    tokenizer_.encode(document, document_);
    const auto total = static_cast<int64_t>(pending_.size() + document_.size());
    if (!pending_.empty() && total > shard_tokens_) flush();
    pending_.insert(pending_.end(), document_.begin(), document_.end());
    ++summary_.documents;
    summary_.tokens += static_cast<int64_t>(document_.size());
    summary_.bytes += static_cast<int64_t>(document.size());
}

void ShardWriter::flush() {
    const auto path = file(summary_.files.size());
    write_shard(path, pending_, overwrite_);
    summary_.files.push_back(path);
    pending_.clear();
}

ShardWriter::Summary ShardWriter::finish() {
    if (!pending_.empty()) flush();
    for (size_t i = summary_.files.size(); overwrite_ == Overwrite::yes && std::filesystem::remove(file(i));
         ++i) {
    }
    return summary_;
}

}  // namespace speedrun

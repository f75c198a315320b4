#include "data/shard_writer.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdio>

#include "util/error.h"
#include "util/files.h"

namespace speedrun {
namespace {

constexpr uint64_t kMostTextBytes = uint64_t{1} << 36;  // of one file: it is read whole

std::string_view without_return(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    return line;
}

// Where the first line's text begins: a byte order mark is none of it.
size_t first_text(std::string_view text) {
    constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
    return text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
}

}  // namespace

TextDocuments for_each_document(const std::filesystem::path& file,
                                const std::optional<std::string>& separator,
                                const std::function<void(std::string_view)>& visit) {
    const std::string bytes = files::read(file, kMostTextBytes);
    const std::string_view text = bytes;
    TextDocuments found;
    const auto emit = [&](size_t begin, size_t end) {
        if (begin == end) return;
        ++found.documents;
        visit(text.substr(begin, end - begin));
    };
    size_t begin = 0, skipped = separator ? first_text(text) : 0;
    for (size_t line = 0; separator && line < text.size(); skipped = 0) {
        const size_t end = std::min(text.find('\n', line), text.size());
        const size_t next = std::min(end + 1, text.size());
        if (without_return(text.substr(line + skipped, end - line - skipped)) == *separator) {
            ++found.separators;
            emit(begin, line);
            begin = next;
        }
        line = next;
    }
    emit(begin, text.size());
    return found;
}

ShardWriter::ShardWriter(const Tokenizer& tokenizer, std::string prefix, int64_t shard_tokens,
                         Overwrite overwrite)
    : tokenizer_(tokenizer), prefix_(std::move(prefix)), shard_tokens_(shard_tokens), overwrite_(overwrite) {
    check(shard_tokens_ > 0, "a shard of no tokens");
    const auto folder = file(0).parent_path();
    if (!folder.empty() && !files::is_folder(folder)) {
        throw UserError(folder.string() + ": no such folder to write shards to");
    }
    require_free(file(0));
}

void ShardWriter::require_free(const std::filesystem::path& name) const {
    if (overwrite_ == Overwrite::no && files::exists(name))
        throw UserError(name.string() + ": exists already; --force overwrites the shards of this prefix");
}

// A part of the shards would stand in the way of the next try.
ShardWriter::~ShardWriter() {
    for (size_t i = 0; i < summary_.files.size(); ++i) files::try_remove(unnamed(i));
}

std::filesystem::path ShardWriter::file(size_t index) const {
    return fmt::format("{}_{:06}.bin", prefix_, index);
}

std::filesystem::path ShardWriter::unnamed(size_t index) const {
    return file(index).string() + ".part";
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
    const size_t index = summary_.files.size();
    require_free(file(index));
    write_shard(unnamed(index), pending_, Overwrite::yes);
    summary_.files.push_back(file(index));
    pending_.clear();
}

ShardWriter::Summary ShardWriter::finish() {
    if (!pending_.empty()) flush();
    for (size_t i = 0; i < summary_.files.size(); ++i) files::rename(unnamed(i), file(i));
    for (size_t i = summary_.files.size(); overwrite_ == Overwrite::yes && files::exists(file(i)); ++i)
        files::remove(file(i));
    return summary_;
}

}  // namespace speedrun

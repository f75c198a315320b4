#include "util/read_file.h"

#include <algorithm>
#include <fstream>

#include "util/error.h"

namespace speedrun {

std::string read_file(const std::filesystem::path& file, size_t most) {
    std::ifstream in(file, std::ios::binary);
    if (!in || std::filesystem::is_directory(file))
        throw UserError(file.string() + ": no such file, or it cannot be read");
    std::string text;
    constexpr size_t piece = size_t{1} << 16;
    for (size_t read = piece; read == piece && text.size() <= most;) {
        text.resize(text.size() + piece);
        in.read(text.data() + text.size() - piece, piece);
        read = static_cast<size_t>(in.gcount());
        text.resize(text.size() - piece + read);
    }
    if (in.bad()) throw UserError(file.string() + ": reading failed");
    if (text.size() > most)
        throw UserError(file.string() + ": larger than " + std::to_string(most) + " bytes, the most allowed");
    return text;
}

}  // namespace speedrun

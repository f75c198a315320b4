// Any file is read as safetensors or refused by a UserError; the tensors of one that is read tile its data.
#include <cstring>
#include <string>

#include "fuzz_files.h"
#include "util/safetensors.h"

namespace speedrun {
namespace {

void check_tensors(const SafetensorsFile& file, size_t size) {
    size_t data = 0;
    unsigned sum = 0;
    for (const SafeTensor& tensor : file.tensors()) {
        data += tensor.data.size();
        for (const std::byte byte : tensor.data) sum += std::to_integer<unsigned>(byte);
        uint64_t elements = 1;
        for (const int64_t n : tensor.shape) elements *= static_cast<uint64_t>(n);
        check(elements * static_cast<uint64_t>(safetensors_item_size(tensor.dtype)) == tensor.data.size(),
              "a tensor has its shape's bytes");
        check(file.find(tensor.name) != nullptr, "a tensor is found by its name");
    }
    check(data + 8 <= size && sum <= 255 * size, "the data lies in the file");
}

void check_file(std::string_view bytes) {
    static const FuzzFolder folder;
    try {
        check_tensors(SafetensorsFile(folder.write("file.safetensors", bytes)), bytes.size());
    } catch (const UserError& error) {
        check_message(error.what());
    }
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::check_file(speedrun::as_text(bytes, size));
    return 0;
}

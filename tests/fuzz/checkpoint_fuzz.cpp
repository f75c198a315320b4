// Any checkpoint.json is read or refused by a UserError, also where its check is right; one that is read is
// written as the same again, and names no file outside its folder.
#include <string>

#include "fuzz_files.h"
#include "train/checkpoint/find.h"
#include "util/json_document.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

// The text with the check it should have; nothing where it is no JSON object.
std::string with_check(std::string_view bytes) {
    Json body;
    try {
        body = parse_json(bytes, "manifest");
    } catch (const UserError&) {
        return "";
    }
    if (!body.is_object()) return "";
    body.erase("check");
    XxHash64 hash;
    hash.update(body.dump());
    body["check"] = hex64(hash.digest());
    return body.dump();
}

void check_manifest(std::string_view bytes) {
    static const FuzzFolder folder;
    const auto file = folder.write("checkpoint.json", bytes);
    try {
        const CheckpointManifest manifest = read_manifest(file);
        for (const auto& [name, unused] : manifest.files)
            check((folder.path() / name).lexically_normal().parent_path() == folder.path(),
                  "a file of the folder");
        const std::string text = to_json(manifest);
        check(to_json(read_manifest(folder.write("checkpoint.json", text))) == text, "the same again");
        open_checkpoint(folder.path());
    } catch (const UserError& error) {
        check_message(error.what());
    }
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::check_manifest(speedrun::as_text(bytes, size));
    speedrun::check_manifest(speedrun::with_check(speedrun::as_text(bytes, size)));
    return 0;
}

// checkpoint.json from anywhere: what is believed, and what it can lead to.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "train/checkpoint/find.h"
#include "util/json_document.h"
#include "util/xxhash64.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

CheckpointManifest sample() {
    CheckpointManifest manifest{.step = 12,
                                .tokens = 6144,
                                .train_time_ms = 1.5,
                                .train_loss = 5,
                                .val_loss = {},
                                .data = {.shard = 1, .document = 7, .step = 12},
                                .train_shards = {{"t_0.bin", 18024, hex64(1)}, {"t_1.bin", 18024, hex64(2)}},
                                .val_shards = {{"v.bin", 6024, hex64(3)}},
                                .world_size = 2,
                                .threads = 4,
                                .config_hash = "00",
                                .build = "abc",
                                .files = {}};
    for (const char* name : {"weights.safetensors", "optimizer.safetensors", "config.json"})
        manifest.files[name] = {3, hex64(0)};
    return manifest;
}

class Manifests : public ::testing::Test {
  protected:
    void write(const std::string& text) const { std::ofstream(folder_ / "checkpoint.json") << text; }
    CheckpointManifest read() const { return read_manifest(folder_ / "checkpoint.json"); }

    // The sample with `path` set to `value`, under a check that is right.
    void expect_refused(const std::string& path, const Json& value,
                        std::initializer_list<std::string> parts) const {
        Json body = parse_json(to_json(sample()), "sample");
        body.erase("check");
        body[Json::json_pointer(path)] = value;
        XxHash64 hash;
        hash.update(body.dump());
        body["check"] = hex64(hash.digest());
        write(body.dump());
        SCOPED_TRACE(path);
        expect_user_error([&] { read(); }, parts);
    }
    TemporaryFolder folder_;
};

TEST_F(Manifests, ComeBackAsTheyWere) {
    write(to_json(sample()));
    EXPECT_EQ(to_json(read()), to_json(sample()));
}

TEST_F(Manifests, ADamagedOneIsNotBelieved) {
    std::string text = to_json(sample());
    text.replace(text.find("\"tokens\": 6144"), 14, "\"tokens\": 6145");
    write(text);
    expect_user_error([&] { read(); }, {"checkpoint.json", "it is damaged"});
    for (size_t cut = 0; cut < to_json(sample()).size() - 1; cut += 7) {
        write(to_json(sample()).substr(0, cut));
        EXPECT_THROW(read(), UserError) << cut;
    }
}

// The check is no secret: whoever writes a manifest can make it right.
TEST_F(Manifests, NamesNeverLeaveTheFolder) {
    const Json file{{"bytes", 1}, {"xxh64", hex64(0)}};
    for (const std::string& name : std::vector<std::string>{"../x", "/etc/passwd", "a/b", ".", "..", "a b",
                                                            "a\n", std::string(256, 'a')}) {
        Json files = Json::object();
        files[name] = file;
        expect_refused("/files", files, {"checkpoint.json", "is not in its folder"});
    }
}

TEST_F(Manifests, NumbersAreThoseOfARun) {
    expect_refused("/step", -1, {"step is -1; allowed: a whole number, 0 .."});
    expect_refused("/step", 1e300, {"step is 1e+300"});
    expect_refused("/tokens", "many", {"tokens is \"many\""});
    expect_refused("/train_time_ms", -0.5, {"train_time_ms is -0.5; allowed: a number, at least 0"});
    expect_refused("/data/step", 11, {"step is 11; allowed: a whole number, 12 .. 12"});
    expect_refused("/data/document", -4, {"document is -4"});
    expect_refused("/world_size", 0, {"world_size is 0; allowed: a whole number, 1 .. 1048576"});
    expect_refused("/world_size", INT64_MAX, {"world_size"});
    expect_refused("/log_bytes", UINT64_MAX, {"log_bytes is 18446744073709551615"});
    expect_refused("/pending_gradients", 1, {"not a checkpoint's manifest"});
    expect_refused("/build", std::string(2000, 'x'), {"a text of at most 1000 bytes"});
    expect_refused("/files/config.json/xxh64", "\x1b[31m", {"16 hexadecimal digits"});
    expect_refused("/files", Json::array({1}), {"not a checkpoint's manifest"});
    expect_refused("/format", 1, {"format 1; this program reads 2"});
    expect_refused("/threads", 0, {"threads is 0; allowed: a whole number, 1 .."});
    expect_refused("/train_shards", 7, {"shards are 7; allowed: a list"});
    expect_refused("/val_shards/0/xxh64", "no hash", {"16 hexadecimal digits"});
    expect_refused("/val_shards/0/name", std::string(2000, 'x'), {"a text of at most 1000 bytes"});
}

TEST_F(Manifests, ACheckpointNamesWhatItConsistsOf) {
    CheckpointManifest manifest = sample();
    manifest.files.erase("optimizer.safetensors");
    write(to_json(manifest));
    expect_user_error([&] { open_checkpoint(folder_.path()); }, {"does not name optimizer.safetensors"});
    manifest = sample();
    manifest.pending_gradients = true;
    write(to_json(manifest));
    expect_user_error([&] { open_checkpoint(folder_.path()); }, {"does not name gradients_0.safetensors"});
}

TEST_F(Manifests, APipeIsNotWaitedFor) {
    ASSERT_EQ(::mkfifo((folder_ / "checkpoint.json").c_str(), 0600), 0);
    expect_user_error([&] { read(); }, {"not a regular one"});
    fs::remove(folder_ / "checkpoint.json");
    write(to_json(sample()));
    ASSERT_EQ(::mkfifo((folder_ / "config.json").c_str(), 0600), 0);
    expect_user_error([&] { open_checkpoint(folder_.path()); }, {"config.json"});
}

// A device has no end, and a file may have a size without the bytes.
TEST_F(Manifests, FilesOfAnotherSizeAreNotRead) {
    CheckpointManifest manifest = sample();
    write(to_json(manifest));
    for (const auto& [name, unused] : manifest.files) std::ofstream(folder_ / name) << "abc";
    fs::remove(folder_ / "config.json");
    fs::create_symlink("/dev/zero", folder_ / "config.json");
    expect_user_error([&] { open_checkpoint(folder_.path()); }, {"config.json: is not a regular file"});
    fs::remove(folder_ / "config.json");
    std::ofstream(folder_ / "config.json").close();
    fs::resize_file(folder_ / "config.json", uintmax_t{4} << 40);
    expect_user_error([&] { open_checkpoint(folder_.path()); },
                      {"config.json: has 4398046511104 bytes, not the 3 that were written"});
}

TEST_F(Manifests, ACopyUnderAnotherStepsNameIsPassedOver) {
    CheckpointManifest manifest = sample();
    for (const char* name : {"step_00000012", "step_00000040"}) {
        fs::create_directories(folder_ / name);
        for (auto& [file, measured] : manifest.files) {
            std::ofstream(folder_ / name / file) << "abc";
            measured = measure_file(folder_ / name / file);
        }
        std::ofstream(folder_ / name / "checkpoint.json") << to_json(manifest);
    }
    std::vector<std::string> passed_over;
    const auto found = find_checkpoint(folder_.path(), passed_over);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->folder.filename(), "step_00000012");
    ASSERT_EQ(passed_over.size(), 1U);
    EXPECT_NE(passed_over[0].find("step_00000040: is a copy of the checkpoint after step 12"),
              std::string::npos);
}

// The newest by its number of steps: times of files, which a clock that was set back makes wrong, play no
// part.
TEST_F(Manifests, TheNewestHasTheMostSteps) {
    for (const char* name :
         {"step_00000002", "step_00000010", "step_100000000", "step_00000003", ".step_00000099.7"})
        fs::create_directories(folder_ / name);
    fs::last_write_time(folder_ / "step_00000002",
                        fs::file_time_type::clock::now() + std::chrono::hours(1000));
    fs::last_write_time(folder_ / "step_100000000",
                        fs::file_time_type::clock::now() - std::chrono::hours(100000));
    const auto found = checkpoint_folders(folder_.path());
    ASSERT_EQ(found.size(), 4U);
    EXPECT_EQ(found[0].filename(), "step_100000000");
    EXPECT_EQ(found[1].filename(), "step_00000010");
    EXPECT_EQ(found[3].filename(), "step_00000002");
}

// Past the page cache the same bytes are read, whatever the file's end.
TEST(MeasureFile, FromTheDiskToo) {
    const TemporaryFolder folder;
    for (const size_t size : {0, 1, 4095, 4096, 4097, 3'000'017}) {
        const fs::path path = folder / "file";
        std::string text(size, '\0');
        for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>(i * 31 + i / 251);
        std::ofstream(path, std::ios::binary) << text;
        XxHash64 hash;
        hash.update(text);
        for (const bool from_disk : {false, true}) {
            const CheckpointManifest::File file = measure_file(path, from_disk);
            EXPECT_EQ(file.bytes, size) << from_disk;
            EXPECT_EQ(file.xxh64, hex64(hash.digest())) << size << " " << from_disk;
        }
    }
}

}  // namespace
}  // namespace speedrun

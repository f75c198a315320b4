#include "util/files.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "util/held_folder.h"
#include "util/line_file.h"
#include "util/shell_words.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

void put(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
}

std::string text_of(const fs::path& path) {
    return files::read(path, 1 << 20);
}

TEST(Files, SayWhatAPathIs) {
    const TemporaryFolder folder;
    put(folder / "file", "text");
    fs::create_symlink("file", folder / "link");
    fs::create_symlink("nowhere", folder / "dangling");
    EXPECT_TRUE(files::is_file(folder / "file") && files::is_file(folder / "link"));
    EXPECT_TRUE(files::is_folder(folder.path()));
    EXPECT_FALSE(files::exists(folder / "dangling"));
    EXPECT_FALSE(files::exists(folder / "file" / "below"));
    EXPECT_EQ(files::kind("/dev/null"), files::Kind::other);
    EXPECT_EQ(files::size(folder / "link"), 4U);
    EXPECT_EQ(files::link_target(folder / "link"), fs::path("file"));
    EXPECT_EQ(files::link_target(folder / "file"), std::nullopt);
    EXPECT_TRUE(files::same(folder / "file", folder / "link"));
    EXPECT_EQ(files::real_path(folder / "link"), fs::canonical(folder / "file"));
    EXPECT_EQ(files::list(folder.path()).size(), 3U);
    EXPECT_TRUE(files::list_if_there(folder / "none").empty());
}

TEST(Files, WhatCannotBeLookedAtIsAUserError) {
    const TemporaryFolder folder;
    fs::create_symlink("loop", folder / "loop");
    const fs::path long_name = folder / std::string(300, 'x');
    expect_user_error([&] { files::exists(folder / "loop"); }, {"loop", "symbolic links"});
    expect_user_error([&] { files::is_file(long_name); }, {"xxx", "name too long"});
    expect_user_error([&] { files::size(folder / "none"); }, {"none", "No such file"});
    expect_user_error([&] { files::list(folder / "none"); }, {"none", "cannot be listed"});
    put(folder / "file", "");
    expect_user_error([&] { files::make_folders(folder / "file"); }, {"file", "cannot be created"});
    expect_user_error([&] { files::make_folders(folder / "file" / "below"); }, {"below", "Not a directory"});
    expect_user_error([&] { files::rename(folder / "none", folder / "x"); }, {"x", "place of none"});
    fs::create_directories(folder / "full" / "inside");
    expect_user_error([&] { files::remove(folder / "full"); }, {"full", "cannot be removed"});
    EXPECT_FALSE(files::try_remove(folder / "full"));
    EXPECT_TRUE(files::try_remove_all(folder / "full"));
    files::remove(folder / "none");
}

TEST(Files, ReadsRegularFilesOfABoundedSize) {
    const TemporaryFolder folder;
    put(folder / "file", std::string("a\0b", 3));
    EXPECT_EQ(files::read(folder / "file", 3), std::string("a\0b", 3));
    expect_user_error([&] { files::read(folder / "file", 2); }, {"file", "has 3 bytes, at most 2"});
    expect_user_error([&] { files::read(folder / "none", 2); }, {"none", "No such file"});
    expect_user_error([&] { files::read(folder.path(), 2); }, {"is not a regular file"});
    expect_user_error([&] { files::read("/dev/zero", 2); }, {"is not a regular file"});
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    expect_user_error([&] { files::read(folder / "pipe", 2); }, {"is not a regular file"});
    EXPECT_TRUE(files::is_pipe(folder / "pipe"));
}

TEST(Files, ReadsWhatComesOutOfAPipe) {
    const TemporaryFolder folder;
    ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
    const auto read_back = [&](const std::string& text, uint64_t most_bytes) {
        const std::jthread writer([&] { put(folder / "pipe", text); });
        return files::read_any(folder / "pipe", most_bytes);
    };
    for (const size_t size : {size_t{0}, size_t{5}, size_t{1} << 16, size_t{200'000}}) {
        std::string bytes(size, '\0');
        for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
        EXPECT_EQ(read_back(bytes, size), bytes) << size;
    }
    expect_user_error([&] { read_back("12345", 4); }, {"pipe: larger than 4 bytes"});
    put(folder / "file", "text");
    EXPECT_EQ(files::read_any(folder / "file", 4), "text");
    expect_user_error([&] { files::read_any(folder / "none", 1); }, {"none", "No such file"});
    expect_user_error([&] { files::read_any(folder.path(), 1); }, {"cannot be read", "Is a directory"});
    expect_user_error([&] { files::read_any("/dev/zero", 100); }, {"larger than 100 bytes"});
    expect_user_error([] { files::read_any("/proc/self/mem", 1); }, {"/proc/self/mem: cannot be read"});
}

TEST(HeldFolder, KnowsWhatHasBecomeOfIt) {
    const TemporaryFolder folder;
    fs::create_directories(folder / "run");
    const HeldFolder held(folder / "run");
    EXPECT_TRUE(held.in_place());
    fs::rename(folder / "run", folder / "moved");
    EXPECT_FALSE(held.in_place());
    EXPECT_EQ(held.where(), fs::canonical(folder / "moved"));
    expect_user_error([&] { held.require_in_place(); }, {"run: was moved to", "moved while it was in use"});
    fs::create_directories(folder / "run");  // another folder of that name
    EXPECT_FALSE(held.in_place());
    fs::remove(folder / "moved");
    expect_user_error([&] { held.where(); }, {"run: was removed while it was in use"});
}

TEST(LineFile, GoesOnAfterWhatIsKept) {
    const TemporaryFolder folder;
    put(folder / "log", "one\ntwo\nthree\n");
    LineFile log(folder / "log", 8);
    log.line("3");
    EXPECT_EQ(text_of(folder / "log"), "one\ntwo\n3\n");
    EXPECT_EQ(log.bytes(), 10U);
}

// After a power loss a file may be shorter than it was, and end anywhere.
TEST(LineFile, GoesOnAfterItsLastWholeLineWhereLessIsLeft) {
    const TemporaryFolder folder;
    put(folder / "log", "one\ntw");
    LineFile log(folder / "log", 100);
    EXPECT_EQ(log.bytes(), 4U);
    log.line("2");
    EXPECT_EQ(text_of(folder / "log"), "one\n2\n");
    put(folder / "part", std::string(10'000, 'x'));
    EXPECT_EQ(LineFile(folder / "part", 20'000).bytes(), 0U);
    put(folder / "long", "one\n" + std::string(10'000, 'x'));
    EXPECT_EQ(LineFile(folder / "long", 20'000).bytes(), 4U);
    EXPECT_EQ(LineFile(folder / "gone", 5).bytes(), 0U);
}

TEST(ShellWords, AreReadBackByAShell) {
    EXPECT_EQ(shell_word("--set"), "--set");
    EXPECT_EQ(shell_word("data.train=d/t_[0].bin"), "data.train=d/t_[0].bin");
    EXPECT_EQ(shell_word(""), "''");
    EXPECT_EQ(shell_word("it's $x"), "'it'\\''s $x'");
    EXPECT_EQ(shell_word("a\nstep:4/4\t'"), "$'a\\nstep:4/4\\x09\\''");
    EXPECT_EQ(one_line("a\nb\r\x1b\xC3\xA9"), "a?b??\xC3\xA9");
}

}  // namespace
}  // namespace speedrun

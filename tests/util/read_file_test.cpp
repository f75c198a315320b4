#include "util/read_file.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

TEST(ReadFile, GivesTheBytesUpToTheLimit) {
    const TemporaryFolder folder;
    for (const size_t size :
         {size_t{0}, size_t{5}, size_t{1} << 16, (size_t{1} << 16) + 1, size_t{200'000}}) {
        std::string bytes(size, '\0');
        for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 31 + i / 251);
        std::ofstream(folder / "file", std::ios::binary) << bytes;
        EXPECT_EQ(read_file(folder / "file", size), bytes) << size;
        if (size > 0)
            expect_user_error([&] { read_file(folder / "file", size - 1); },
                              {"file: larger than " + std::to_string(size - 1) + " bytes"});
    }
}

TEST(ReadFile, NamesWhatCannotBeRead) {
    const TemporaryFolder folder;
    expect_user_error([&] { read_file(folder / "none", 1); }, {"none: no such file"});
    expect_user_error([&] { read_file(folder.path(), 1); }, {"cannot be read"});
    expect_user_error([] { read_file("/proc/self/mem", 1); }, {"/proc/self/mem: reading failed"});
}

}  // namespace
}  // namespace speedrun

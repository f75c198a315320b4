#include "util/module.h"

#include <gtest/gtest.h>

#include <fstream>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

TEST(Module, MissingFileIsNamed) {
    const TemporaryFolder folder;
    expect_user_error([&] { module_symbol("libnone.so", "table", "MPI (libopenmpi-dev)", folder.path()); },
                      {(folder.path() / "libnone.so").string(), "missing", "MPI (libopenmpi-dev)"});
}

TEST(Module, WhatDlopenSaysIsPassedOn) {
    const TemporaryFolder folder;
    std::ofstream(folder.path() / "libbad.so") << "no library";
    expect_user_error([&] { module_symbol("libbad.so", "table", "MPI", folder.path()); },
                      {"libbad.so", "cannot be loaded", "file too short", "needs MPI"});
}

TEST(Module, NotLoaded) {
    EXPECT_EQ(loaded_module_symbol("libnone.so", "table"), nullptr);
}

}  // namespace
}  // namespace speedrun

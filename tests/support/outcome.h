#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace speedrun {

// What a program or a verb returned and printed.
struct Outcome {
    int exit_code = 0;
    std::string out, err;
};

// Calls `body` with the words as argv, and takes what it prints; an exception of it goes on.
inline Outcome captured(std::vector<std::string> words, const std::function<int(std::span<char*>)>& body) {
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    Outcome outcome;
    try {
        outcome.exit_code = body(argv);
    } catch (...) {
        ::testing::internal::GetCapturedStdout();
        ::testing::internal::GetCapturedStderr();
        throw;
    }
    outcome.out = ::testing::internal::GetCapturedStdout();
    outcome.err = ::testing::internal::GetCapturedStderr();
    return outcome;
}

}  // namespace speedrun

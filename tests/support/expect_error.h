#pragma once
#include <gtest/gtest.h>

#include <initializer_list>
#include <string>

#include "util/error.h"

namespace speedrun {

// Expects `body` to throw a UserError whose text holds every one of `parts`.
template <typename Body>
void expect_user_error(Body&& body, std::initializer_list<std::string> parts) {
    try {
        body();
        ADD_FAILURE() << "no UserError";
    } catch (const UserError& e) {
        const std::string text = e.what();
        for (const std::string& part : parts)
            EXPECT_NE(text.find(part), std::string::npos) << part << " not in: " << text;
    }
}

}  // namespace speedrun

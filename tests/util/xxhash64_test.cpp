#include "util/xxhash64.h"

#include <gtest/gtest.h>

namespace speedrun {
namespace {

uint64_t hash(std::string_view bytes) {
    XxHash64 h;
    h.update(bytes);
    return h.digest();
}

// The published values of XXH64 with seed 0 for the first two; the others from the Python package
// xxhash 4.1.0.
TEST(XxHash64, HasThePublishedValues) {
    EXPECT_EQ(hex64(hash("")), "ef46db3751d8e999");
    EXPECT_EQ(hex64(hash("abc")), "44bc2cf5ad770999");
    EXPECT_EQ(hex64(hash("Nobody inspects the spammish repetition")), "fbcea83c8a378bf1");
}

TEST(XxHash64, DoesNotDependOnTheCuts) {
    std::string text;
    for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
    for (size_t cut = 0; cut <= text.size(); ++cut) {
        XxHash64 h;
        h.update(std::string_view(text).substr(0, cut));
        h.update(std::string_view(text).substr(cut));
        EXPECT_EQ(h.digest(), hash(text)) << cut;
    }
}

}  // namespace
}  // namespace speedrun

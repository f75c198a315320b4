#include "util/json_diff.h"

#include <gtest/gtest.h>

#include "util/json_document.h"

namespace speedrun {
namespace {

std::string text(const std::vector<JsonDifference>& differences) {
    std::string all;
    for (const auto& d : differences) all += d.path + "|" + d.before + "|" + d.after + "\n";
    return all;
}

TEST(JsonDiff, NamesEveryLeafThatDiffers) {
    const Json a = Json::parse(R"({"x": 1, "list": [1, {"y": "s"}], "gone": true, "same": {"z": null}})");
    const Json b = Json::parse(R"({"same": {"z": null}, "x": 1.5, "list": [1, {"y": "t"}, 3], "new": []})");
    EXPECT_EQ(text(json_diff(a, b)),
              "gone|true|(absent)\nlist[1].y|\"s\"|\"t\"\nlist[2]|(absent)|3\nnew|(absent)|[]\nx|1|1.5\n");
    EXPECT_EQ(text(json_diff(a, a)), "");
}

}  // namespace
}  // namespace speedrun

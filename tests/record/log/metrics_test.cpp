#include "record/log/metrics.h"

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

TEST(Metrics, LeavesOutWhatIsAbsent) {
    Metrics metrics;
    metrics.step = 12;
    metrics.tokens = 24576;
    metrics.train_time_ms = 842.5;
    metrics.train_loss = 7.25;
    EXPECT_EQ(to_json_line(metrics), R"({"step":12,"train_loss":7.25,"train_time_ms":842.5,"tokens":24576})");
}

TEST(Metrics, WritesNonNumbersAsTexts) {
    Metrics metrics;
    metrics.train_loss = std::nan("");
    metrics.val_loss = std::numeric_limits<double>::infinity();
    metrics.diagnostics["rms/embed"] = -std::numeric_limits<double>::infinity();
    const auto json = nlohmann::json::parse(to_json_line(metrics));
    EXPECT_EQ(json["train_loss"], "nan");
    EXPECT_EQ(json["val_loss"], "inf");
    EXPECT_EQ(json["diagnostics"]["rms/embed"], "-inf");
}

TEST(Metrics, FileHoldsOneObjectALineAtOnce) {
    const TemporaryFolder folder;
    MetricsFile file(folder / "metrics.jsonl");
    std::ifstream reader(folder / "metrics.jsonl");
    for (int64_t step = 1; step <= 3; ++step) {
        Metrics metrics;
        metrics.step = step;
        metrics.lr = 1.0 / static_cast<double>(step);
        metrics.diagnostics["a\"b\n"] = 0.1;
        file.write(metrics);
        // Readable while the run goes on.
        std::string line;
        ASSERT_TRUE(std::getline(reader, line));
        const auto json = nlohmann::json::parse(line);
        EXPECT_EQ(json["step"], step);
        EXPECT_EQ(json["lr"].get<double>(), 1.0 / static_cast<double>(step));
        EXPECT_EQ(json["diagnostics"]["a\"b\n"].get<double>(), 0.1);
    }
}

TEST(Metrics, SaysThatTheDiskIsFull) {
    MetricsFile file("/dev/full");
    expect_user_error([&] { file.write({}); }, {"/dev/full", "No space left on device"});
}

}  // namespace
}  // namespace speedrun

// Work that is done, then recorded, then launched, with what the host does in between.
#include "ops/recording.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "support/function_graphs.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

TEST(Recording, IsMadeTheSecondTimeAndLaunchedFromThenOn) {
    FunctionGraphs graphs;
    Recording recording;
    for (int64_t time = 0; time < 4; ++time) {
        recording.run([] {}, graphs);
        EXPECT_EQ(graphs.recorded, time == 0 ? 0 : 1);
        EXPECT_EQ(graphs.launched, time);
    }
}

TEST(Recording, KeepsTheDevicesWorkAndCallsTheHostsOfNow) {
    FunctionGraphs graphs;
    Recording recording;
    std::string done;
    for (const char time : {'1', '2', '3'}) {
        const auto device = [&done, time](char part) {
            return [&done, time, part] { done += {' ', part, time}; };
        };
        const auto host = [&] { done += {' ', 'h', time}; };
        recording.run(std::array{WorkPart{device('a'), host}, WorkPart{device('b'), {}}}, graphs);
    }
    EXPECT_EQ(done, " a1 h1 b1 a2 h2 b2 a2 h3 b2");
    EXPECT_EQ(graphs.recorded, 2);
}

// Calls the work where a GPU would record it.
class Calling final : public speedrun::cuda::Graphs {
    class Calls final : public speedrun::cuda::Graph {
        void record(const std::function<void()>& work) override { work(); }
        void launch() override {}
        int64_t kernels() const override { return 0; }
    };

  public:
    std::unique_ptr<speedrun::cuda::Graph> make() override { return std::make_unique<Calls>(); }
};

TEST(Recording, WorkThatRefusesItSaysHowToDoWithout) {
    Calling graphs;
    Recording recording;
    recording.run([] {}, graphs);
    try {
        recording.run([] { throw std::runtime_error("it waits"); }, graphs);
        ADD_FAILURE() << "recorded";
    } catch (const UserError& error) {
        const std::string what = error.what();
        EXPECT_NE(what.find("it waits"), std::string::npos) << what;
        EXPECT_NE(what.find("runtime.cuda_graphs=false"), std::string::npos) << what;
    }
}

TEST(Recording, ABrokenInvariantOfTheWorkStaysOne) {
    Calling graphs;
    Recording recording;
    recording.run([] {}, graphs);
    EXPECT_THROW(recording.run([] { throw InternalError("of the work"); }, graphs), InternalError);
}

}  // namespace
}  // namespace speedrun::ops

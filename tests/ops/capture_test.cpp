// Work that is done, then captured, then launched, with what the host does in between.
#include "ops/capture.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <string>

#include "support/function_graphs.h"
#include "util/error.h"

namespace speedrun::ops {
namespace {

TEST(Capture, IsMadeTheSecondTimeAndLaunchedFromThenOn) {
    FunctionGraphs graphs;
    Capture capture;
    for (int64_t time = 0; time < 4; ++time) {
        capture.run([] {}, graphs);
        EXPECT_EQ(graphs.captured, time == 0 ? 0 : 1);
        EXPECT_EQ(graphs.launched, time);
    }
}

TEST(Capture, KeepsTheDevicesWorkAndCallsTheHostsOfNow) {
    FunctionGraphs graphs;
    Capture capture;
    std::string done;
    for (const char time : {'1', '2', '3'}) {
        const auto device = [&done, time](char part) {
            return [&done, time, part] { done += {' ', part, time}; };
        };
        const auto host = [&] { done += {' ', 'h', time}; };
        capture.run(std::array{WorkPart{device('a'), host}, WorkPart{device('b'), {}}}, graphs);
    }
    EXPECT_EQ(done, " a1 h1 b1 a2 h2 b2 a2 h3 b2");
    EXPECT_EQ(graphs.captured, 2);
}

// Calls the work where a GPU would record it.
class Calling final : public speedrun::cuda::Graphs {
    class Calls final : public speedrun::cuda::Graph {
        void capture(const std::function<void()>& work) override { work(); }
        void launch() override {}
        int64_t kernels() const override { return 0; }
    };

  public:
    std::unique_ptr<speedrun::cuda::Graph> make() override { return std::make_unique<Calls>(); }
};

TEST(Capture, WorkThatRefusesItSaysHowToDoWithout) {
    Calling graphs;
    Capture capture;
    capture.run([] {}, graphs);
    try {
        capture.run([] { throw std::runtime_error("it waits"); }, graphs);
        ADD_FAILURE() << "captured";
    } catch (const UserError& error) {
        const std::string what = error.what();
        EXPECT_NE(what.find("it waits"), std::string::npos) << what;
        EXPECT_NE(what.find("runtime.cuda_graphs=false"), std::string::npos) << what;
    }
}

TEST(Capture, ABrokenInvariantOfTheWorkStaysOne) {
    Calling graphs;
    Capture capture;
    capture.run([] {}, graphs);
    EXPECT_THROW(capture.run([] { throw InternalError("of the work"); }, graphs), InternalError);
}

}  // namespace
}  // namespace speedrun::ops

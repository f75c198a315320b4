// Steps that are launched from recordings against steps that are not: the same bits. On a CPU recordings are
// functions (support/function_graphs.h), which see old values of all that a step does not read from memory;
// on a GPU they are CUDA graphs.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/step_shapes.h"
#include "model/initialize.h"
#include "model/load_config.h"
#include "ops/cuda/gpu.h"
#include "optim/optimizer.h"
#include "support/function_graphs.h"
#include "support/golden_inputs.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace speedrun {
namespace {

struct Outcome {
    std::vector<double> numbers;  // losses and sums of gradients
    std::vector<at::Tensor> values, state;
    std::vector<std::string> completed;  // gradients, in the order they were reported
};

class CapturedSteps : public ::testing::Test {
  protected:
    CapturedSteps() { write_shard(folder_ / "train_1.bin", golden::train_tokens_1()); }

    struct How {
        bool report = false;  // somebody waits for gradients
        std::string rule = "normuon";
        std::vector<std::string> parts = {};  // overrides beside the rule
        at::Device device = at::kCPU;
        int64_t until = -1;  // from this step on nothing is captured
        int64_t rows = 8;    // of 256 tokens, in each step
        std::function<void(int64_t)> before_step = {}, after_step = {};
    };

    // Most tokens have a prefix.
    static std::vector<int64_t> halves(int64_t vocab) {
        std::vector<int64_t> prefixes(static_cast<size_t>(vocab), -1);
        for (size_t id = 1; id < prefixes.size(); ++id) prefixes[id] = static_cast<int64_t>(id / 2);
        return prefixes;
    }

    // Twelve steps over all stages, Adam's every other one.
    Outcome run(const std::shared_ptr<cuda::Graphs>& graphs, const How& how) {
        // scripts/gpu_check runs it on a machine where the sources lie elsewhere.
        const char* const elsewhere = std::getenv("SPEEDRUN_ROOT");
        std::vector<std::string> overrides{
            "optimizer.matrix.rule=" + how.rule,
            std::string("numerics.activations=") + (how.device.is_cpu() ? "fp32" : "bf16"),
            "data.rows=" + std::to_string(how.rows),
            "data.prefix_table=halves",  // what a run would read
            R"(schedule.stages[0].prefix={"from": 0.25, "to": 0, "begin": 0, "end": 3})"};
        overrides.insert(overrides.end(), how.parts.begin(), how.parts.end());
        for (int stage = 0; stage < 4; ++stage)
            overrides.push_back("schedule.stages[" + std::to_string(stage) +
                                "].batch_tokens=" + std::to_string(256 * how.rows));
        const Config config = load_config(
            std::string(elsewhere ? elsewhere : SPEEDRUN_SOURCE_DIR) + "/tests/golden/golden_tiny.json",
            overrides);
        GPT model(config, 512, how.device);
        model.use_prefixes(halves(config.model.vocab_size));
        initialize(model.parameters(), config.model, 7);
        const auto communicator = make_self_communicator();
        Optimizer optimizer(config, model.parameters(), *communicator);
        model.capture_with(graphs);
        optimizer.capture_with(graphs);
        TrainLoader loader({folder_ / "train_1.bin"}, data_layout(config.data));
        Outcome outcome;
        const GradReady note = [&](const ElementRange& part) {
            outcome.completed.push_back(part.param + " " + std::to_string(part.begin));
        };
        std::array<Batch, 2> places;  // a GPU's batches have two as well
        for (int64_t step = 0; step < config.schedule.total_steps(); ++step) {
            const StepSettings settings = settings_at(config, step);
            const std::vector<Batch> batches = loader.next_step(step_shape(config.data, settings));
            std::vector<at::Tensor> numbers;
            if (how.before_step) how.before_step(step);
            if (step == how.until) {
                model.capture_with(nullptr);
                optimizer.capture_with(nullptr);
            }
            for (size_t i = 0; i < batches.size(); ++i) {
                places[i % 2] = batches[i];
                numbers.push_back(
                    model.forward_backward(places[i % 2], settings, 1, how.report ? note : GradReady{}));
            }
            numbers.push_back(optimizer.gradient_sum().clone());
            optimizer.step(settings);
            if (how.after_step) how.after_step(step);
            for (const at::Tensor& number : numbers) outcome.numbers.push_back(number.item<double>());
        }
        for (const Parameter& parameter : model.parameters().all()) outcome.values.push_back(parameter.value);
        for (const NamedTensor& part : optimizer.state()) outcome.state.push_back(part.tensor);
        return outcome;
    }

    static void expect_same(const Outcome& a, const Outcome& b) {
        EXPECT_EQ(a.numbers, b.numbers);
        EXPECT_EQ(a.completed, b.completed);
        for (const auto which : {&Outcome::values, &Outcome::state}) {
            ASSERT_EQ((a.*which).size(), (b.*which).size());
            for (size_t i = 0; i < (a.*which).size(); ++i)
                EXPECT_TRUE((a.*which)[i].equal((b.*which)[i])) << "tensor " << i;
        }
    }

    TemporaryFolder folder_;
};

TEST_F(CapturedSteps, AreThoseThatAreNot) {
    const auto graphs = std::make_shared<FunctionGraphs>();
    expect_same(run(graphs, {}), run(nullptr, {}));
    EXPECT_GT(graphs->launched, 5 * graphs->captured);
}

TEST_F(CapturedSteps, TellWhenGradientsAreComplete) {
    const auto graphs = std::make_shared<FunctionGraphs>();
    const How report{.report = true};
    expect_same(run(graphs, report), run(nullptr, report));
    EXPECT_GT(graphs->launched, 5 * graphs->captured);
}

TEST_F(CapturedSteps, MayEnd) {
    const auto graphs = std::make_shared<FunctionGraphs>();
    const How how{.until = 8};
    expect_same(run(graphs, how), run(nullptr, how));
    EXPECT_GT(graphs->launched, graphs->captured);
}

// Rules whose steps differ in more than numbers are left as they are, and the rest is captured.
TEST_F(CapturedSteps, OfEveryRule) {
    for (const std::string rule : {"muon", "normuon_paper", "adamuon", "mommuon", "adamw", "sgd", "r04_adamh",
                                   "r23_muown", "r28_dynmuon"}) {
        SCOPED_TRACE(rule);
        const How how{.rule = rule, .rows = 2};
        expect_same(run(std::make_shared<FunctionGraphs>(), how), run(nullptr, how));
    }
    // What stands behind SOAP, whose steps differ in more.
    const How pinned{
        .rule = "r46_pinned_soap_muon", .parts = {"optimizer.matrix.direction.kind=momentum"}, .rows = 2};
    expect_same(run(std::make_shared<FunctionGraphs>(), pinned), run(nullptr, pinned));
}

class CapturedStepsOnGpu : public CapturedSteps {
  protected:
    void SetUp() override {
        if (ops::cuda::have_driver() && ops::cuda::have_backend()) ops::cuda::load_backend();
        if (!at::hasCUDA() || at::getNumGPUs() == 0) GTEST_SKIP() << "needs an NVIDIA GPU";
        const c10::impl::VirtualGuardImpl gpu(at::kCUDA);
        gpu.exchangeStream(gpu.getStreamFromGlobalPool(at::Device(at::kCUDA, 0)));
        at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);  // attention's dq
    }
    void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, false); }
};

TEST_F(CapturedStepsOnGpu, AreThoseThatAreNot) {
    for (const bool report : {false, true}) {
        const How how{.report = report, .device = at::Device(at::kCUDA, 0)};
        expect_same(run(ops::cuda::make_graphs(), how), run(nullptr, how));
    }
}

// A stage, begun by every third step, is recorded in its first one, Adam's update in the fourth.
bool recorded_before(int64_t step) {
    return step > 3 && step % 3 != 0;
}

TEST_F(CapturedStepsOnGpu, NeitherAllocateNorWait) {
    const cuda::GraphTable& table = ops::cuda::graph_table();
    int64_t before = 0;
    How how{.device = at::Device(at::kCUDA, 0)};
    how.before_step = [&](int64_t step) {
        before = table.device_allocations();
        table.forbid_waiting(recorded_before(step));
    };
    how.after_step = [&](int64_t step) {
        table.forbid_waiting(false);
        if (!recorded_before(step)) return;
        EXPECT_EQ(table.device_allocations(), before) << "step " << step;
    };
    run(ops::cuda::make_graphs(), how);
}

}  // namespace
}  // namespace speedrun

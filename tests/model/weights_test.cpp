#include "model/weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "model/initialize.h"
#include "support/small_record.h"
#include "util/error.h"
#include "util/safetensors.h"

namespace speedrun {
namespace {

class Weights : public ::testing::Test {
  protected:
    void SetUp() override {
        const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
        folder_ = std::filesystem::path(::testing::TempDir()) /
                  ("weights-" + std::to_string(::getpid()) + "-" + info->name());
        std::filesystem::create_directories(folder_);
        file_ = folder_ / "weights.safetensors";
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    static ParameterTable make(uint64_t seed, int64_t pad = 2) {
        const Config config = small_record({.d_model = 16, .vocab_size = 64, .pad = pad},
                                           {"numerics.lm_head.format=activations"});
        ParameterTable table(config, compile(config), at::kCPU);
        initialize(table, config.model, seed);
        return table;
    }

    // Saves a table, lets `change` at the list of tensors, writes them again.
    void rewrite(const std::function<void(std::vector<SafeTensor>&)>& change) {
        save_weights(make(1), file_);
        const SafetensorsFile file(file_);
        std::vector<SafeTensor> tensors = file.tensors();
        change(tensors);
        write_safetensors(file_, tensors);
    }
    static SafeTensor& find(std::vector<SafeTensor>& tensors, const std::string& name) {
        return *std::ranges::find(tensors, name, &SafeTensor::name);
    }

    // The message of the UserError that loading gives; the table must be as before.
    std::string failure() {
        ParameterTable table = make(9), before = make(9);
        std::string message;
        try {
            load_weights(table, file_);
        } catch (const UserError& error) {
            message = error.what();
        }
        for (const Parameter& parameter : table.all()) {
            EXPECT_TRUE(parameter.value.equal(before[parameter.config.name].value)) << parameter.config.name;
        }
        EXPECT_NE(message.find(file_.string()), std::string::npos) << message;
        return message;
    }

    std::filesystem::path folder_, file_;
};

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST_F(Weights, RoundTripIsExact) {
    const ParameterTable saved = make(1);
    save_weights(saved, file_);
    ParameterTable loaded = make(2);
    load_weights(loaded, file_);
    for (const Parameter& parameter : saved.all()) {
        EXPECT_TRUE(parameter.value.equal(loaded[parameter.config.name].value)) << parameter.config.name;
        EXPECT_TRUE(parameter.used.equal(loaded[parameter.config.name].used)) << parameter.config.name;
    }
}

TEST_F(Weights, NamesAndShapesAreTheReferences) {
    save_weights(make(1), file_);
    const SafetensorsFile file(file_);
    EXPECT_EQ(file.tensors().size(), 49u);
    const auto shape = [&](const char* name) { return file.find(name)->shape; };
    EXPECT_EQ(shape("blocks.11.attn.qkvo_w"), (std::vector<int64_t>{16, 64}));
    EXPECT_EQ(shape("blocks.7.mlp.c_fc"), (std::vector<int64_t>{16, 64}));
    EXPECT_EQ(shape("smear_gate.weight"), (std::vector<int64_t>{1, 12}));
    EXPECT_EQ(shape("value_embeds.2.weight"), (std::vector<int64_t>{64, 16}));
    EXPECT_EQ(file.find("blocks.7.attn.qkvo_w"), nullptr);
    EXPECT_EQ(file.find("embed.weight")->dtype, "BF16");
    EXPECT_EQ(file.find("scalars")->dtype, "F32");
}

TEST_F(Weights, OtherDtypesAreConverted) {
    for (const auto& [dtype, name] :
         {std::pair{at::kFloat, "F32"}, {at::kHalf, "F16"}, {at::kBFloat16, "BF16"}}) {
        const at::Tensor fc = at::randn({16, 64}).to(dtype);
        rewrite([&](auto& tensors) {
            SafeTensor& tensor = find(tensors, "blocks.3.mlp.c_fc");
            tensor.dtype = name;
            tensor.data = {static_cast<const std::byte*>(fc.const_data_ptr()), fc.nbytes()};
        });
        ParameterTable table = make(2);
        load_weights(table, file_);
        EXPECT_TRUE(table["mlp_fc"].value[2].equal(fc.to(at::kFloat))) << name;
    }
}

TEST_F(Weights, MissingAndExtraTensorsAreNamedWithTheNearest) {
    rewrite([](auto& tensors) { find(tensors, "blocks.3.mlp.c_fc").name = "blocks.3.mlp.c_cf"; });
    const std::string message = failure();
    EXPECT_TRUE(contains(message,
                         "missing 1 of 49 tensors, first 'blocks.3.mlp.c_fc' (nearest: 'blocks.3.mlp.c_cf')"))
        << message;
    EXPECT_TRUE(contains(message, "has 1 the model does not know, first 'blocks.3.mlp.c_cf'")) << message;
}

TEST_F(Weights, OtherShapesAreErrors) {
    rewrite([](auto& tensors) { find(tensors, "blocks.3.mlp.c_fc").shape = {64, 16}; });
    EXPECT_TRUE(contains(failure(), "'blocks.3.mlp.c_fc' has shape [64, 16], the model needs [16, 64]"));
}

TEST_F(Weights, OtherDtypesAreErrors) {
    rewrite([](auto& tensors) { find(tensors, "blocks.3.mlp.c_fc").dtype = "I32"; });
    EXPECT_TRUE(contains(failure(), "'blocks.3.mlp.c_fc' has dtype I32; F32, BF16 and F16 can be read"));
}

TEST_F(Weights, PadMayBeLongerOrShorter) {
    for (const int64_t from : {0, 2, 6}) {
        for (const int64_t to : {0, 2, 6}) {
            ParameterTable saved = make(1, from), loaded = make(2, to);
            saved["scalars"].value.narrow(0, 0, 62).copy_(at::arange(62));
            save_weights(saved, file_);
            load_weights(loaded, file_);
            const at::Tensor& scalars = loaded["scalars"].value;
            EXPECT_TRUE(scalars.narrow(0, 0, 62).equal(at::arange(62, at::kFloat))) << from << to;
            EXPECT_TRUE(scalars.narrow(0, 62, to).eq(1).all().item<bool>()) << from << to;
        }
    }
}

TEST_F(Weights, OnlyThePadMayDiffer) {
    rewrite([](auto& tensors) {
        SafeTensor& scalars = find(tensors, "scalars");
        scalars.shape = {61};
        scalars.data = scalars.data.first(61 * 4);
    });
    EXPECT_TRUE(contains(failure(), "'scalars' has shape [61], the model needs [64]"));
    at::Tensor longer = at::ones({66});
    longer[65] = 0.5;
    rewrite([&](auto& tensors) {
        SafeTensor& scalars = find(tensors, "scalars");
        scalars.shape = {66};
        scalars.data = {static_cast<const std::byte*>(longer.const_data_ptr()), longer.nbytes()};
    });
    EXPECT_TRUE(contains(failure(), "'scalars' has shape [66]"));
}

TEST_F(Weights, UnwritableFolderIsAUserError) {
    EXPECT_THROW(save_weights(make(1), folder_ / "none" / "w.safetensors"), UserError);
    EXPECT_THROW(save_weights(make(1), "/dev/null"), UserError);
}

}  // namespace
}  // namespace speedrun

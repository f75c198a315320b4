// Attention by cuDNN through its C++ frontend, a header-only library that nvcc must not see. It is told to
// find cuDNN when it is first used, so that the module's kernels load where there is none.
#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ops/cuda/attention_graphs.h"

// The frontend looks here for cuDNN.
void* cudnn_frontend::cudnn_dlhandle = nullptr;

namespace speedrun::cuda {
namespace {

namespace fe = cudnn_frontend;
using Attributes = fe::graph::Tensor_attributes;
using Tensor = std::shared_ptr<Attributes>;

void require(fe::error_t outcome, const char* what) {
    if (outcome.is_bad())
        throw std::runtime_error("cuDNN's attention: " + std::string(what) + ": " + outcome.get_message());
}
void require(cudnnStatus_t status, const char* what) {
    if (status != CUDNN_STATUS_SUCCESS)
        throw std::runtime_error("cuDNN's attention: " + std::string(what) + ": " +
                                 fe::detail::get_error_string(status));
}

void load_cudnn() {
    if (fe::cudnn_dlhandle) return;
    // The one LibTorch has loaded too. Of several runtimes of CUDA's in the search path the frontend would
    // take the oldest; this module is linked with 13.
    ::setenv("CUDNN_FRONTEND_CUDART_LIB_NAME", "libcudart.so.13", /*overwrite=*/0);
    fe::cudnn_dlhandle = ::dlopen("libcudnn.so.9", RTLD_NOW);
    if (!fe::cudnn_dlhandle) throw std::runtime_error(std::string("libcudnn.so.9: ") + ::dlerror());
}

// Identifies a tensor of a graph: the tensors themselves, then these, then their offsets.
constexpr int64_t kFirstTensor = 1, kStats = 20, kLengths = 21, kScale = 22, kFirstOffsets = 30;

// Writes the graph of a shape. Documents are cuDNN's batch; where each begins in a packed tensor is its
// ragged offset.
class Description {
  public:
    Description(const AttentionShape& shape, fe::graph::Graph& graph) : shape_(shape), graph_(graph) {
        graph_.set_io_data_type(fe::DataType_t::BFLOAT16)
            .set_intermediate_data_type(fe::DataType_t::FLOAT)
            .set_compute_data_type(fe::DataType_t::FLOAT);
        lengths_ = graph_.tensor(vector("lengths", kLengths, shape.documents, fe::DataType_t::INT32));
        scale_ = graph_.tensor(vector("scale", kScale, 1, fe::DataType_t::FLOAT).set_is_pass_by_value(true));
    }

    void write() {
        if (shape_.backward)
            backward();
        else
            forward();
    }

  private:
    static Attributes vector(const char* name, int64_t uid, int64_t size, fe::DataType_t type) {
        return Attributes()
            .set_name(name)
            .set_uid(uid)
            .set_dim({size, 1, 1, 1})
            .set_stride({1, 1, 1, 1})
            .set_data_type(type);
    }

    // [documents, heads, longest, channels] of a packed [tokens, heads, channels], `stride` from token to
    // token.
    Attributes& pack(Attributes& attributes, int64_t number, int64_t uid, int64_t channels, int64_t stride) {
        return attributes.set_uid(uid)
            .set_dim({shape_.documents, shape_.heads, shape_.longest, channels})
            .set_stride({shape_.longest * stride, channels, stride, 1})
            .set_ragged_offset(graph_.tensor(
                vector("offsets", kFirstOffsets + number, shape_.documents + 1, fe::DataType_t::INT64)));
    }
    Attributes& pack(Attributes& attributes, AttentionTensor which) {
        return pack(attributes, which, kFirstTensor + which, shape_.head_dim, shape_.strides[which]);
    }
    Attributes& pack_stats(Attributes& attributes) {
        return pack(attributes, kAttentionTensors, kStats, 1, shape_.heads)
            .set_data_type(fe::DataType_t::FLOAT);
    }
    Tensor input(AttentionTensor which) {
        Attributes attributes;
        return graph_.tensor(pack(attributes, which));
    }
    void output(const Tensor& tensor, AttentionTensor which) { pack(*tensor, which).set_output(true); }

    template <class Options>
    Options options() const {
        Options options;
        options.set_name("attention")
            .set_padding_mask(true)
            .set_seq_len_q(lengths_)
            .set_seq_len_kv(lengths_)
            .set_attn_scale(scale_)
            .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
            .set_diagonal_band_right_bound(0);
        // cuDNN counts the token itself.
        if (shape_.window + 1 < shape_.longest)
            options.set_diagonal_band_left_bound(static_cast<int>(shape_.window + 1));
        return options;
    }

    void forward() {
        const auto [out, stats] = graph_.sdpa(input(kQ), input(kK), input(kV),
                                              options<fe::graph::SDPA_attributes>().set_generate_stats(true));
        output(out, kOut);
        pack_stats(*stats).set_output(true);
    }

    // Its sums over keys are formed by atomic additions: dq differs in its last bits from run to run. The
    // deterministic way cuDNN 9.19 has on Hopper stores all scores of all documents, padded to the longest:
    // documents * heads * longest^2 * 2 bytes, 6.4 GB for 127 documents of up to 2,048 tokens and 6 heads.
    void backward() {
        Attributes saved;
        const Tensor stats = graph_.tensor(pack_stats(saved));
        // Without the number of tokens its scratch would be that of padded documents.
        const auto [dq, dk, dv] =
            graph_.sdpa_backward(input(kQ), input(kK), input(kV), input(kOut), input(kDout), stats,
                                 options<fe::graph::SDPA_backward_attributes>()
                                     .set_max_total_seq_len_q(shape_.tokens)
                                     .set_max_total_seq_len_kv(shape_.tokens));
        output(dq, kDq);
        output(dk, kDk);
        output(dv, kDv);
    }

    AttentionShape shape_;
    fe::graph::Graph& graph_;
    Tensor lengths_, scale_;
};

// Up to the choice of plans, which asks cuDNN whether it has an engine for the graph.
void find_plans(fe::graph::Graph& graph, cudnnHandle_t handle) {
    require(graph.validate(), "the graph is not valid");
    require(handle ? graph.build_operation_graph(handle) : graph.build_operation_graph(),
            "the graph cannot be built");
    require(graph.create_execution_plans({fe::HeurMode_t::A}), "no engine takes the graph");
    require(graph.check_support(), "the graph is not supported");
}

class Graphs final : public AttentionGraphs {
  public:
    Graphs() {
        load_cudnn();
        require(fe::detail::create_handle(&handle_), "no handle");
    }
    Graphs(const Graphs&) = delete;
    Graphs& operator=(const Graphs&) = delete;
    ~Graphs() override {
        graphs_.clear();
        fe::detail::destroy_handle(handle_);
    }

    int64_t workspace_bytes(const AttentionShape& shape) override { return find(shape).workspace_bytes; }

    void run(const AttentionShape& shape, const AttentionCall& call, Stream stream) override {
        const Built& built = find(shape);
        float scale = call.scale;
        std::unordered_map<int64_t, void*> pack = {
            {kStats, call.stats}, {kLengths, const_cast<int32_t*>(call.lengths)}, {kScale, &scale}};
        for (int64_t i = 0; i < kAttentionOffsets; ++i) {
            if (i < kAttentionTensors && (!shape.backward && i > kOut)) continue;
            if (i < kAttentionTensors) pack[kFirstTensor + i] = call.tensors[static_cast<size_t>(i)];
            pack[kFirstOffsets + i] = const_cast<int64_t*>(call.offsets + i * (shape.documents + 1));
        }
        require(fe::detail::set_stream(handle_, static_cast<cudaStream_t>(stream)), "no stream");
        require(built.graph->execute(handle_, pack, call.workspace), "it did not start");
    }

    std::string device_properties() const override {
        fe::DeviceProperties properties;
        require(properties.set_handle(handle_).build(), "the GPU's properties are not known");
        std::vector<uint8_t> json;
        require(properties.serialize(json), "the GPU's properties cannot be written");
        return {json.begin(), json.end()};
    }

  private:
    struct Built {
        std::shared_ptr<fe::graph::Graph> graph;
        int64_t workspace_bytes = 0;
    };

    const Built& find(const AttentionShape& shape) {
        const auto known = graphs_.find(shape);
        if (known != graphs_.end()) return known->second;
        Built built{std::make_shared<fe::graph::Graph>()};
        Description(shape, *built.graph).write();
        find_plans(*built.graph, handle_);
        require(built.graph->build_plans(), "no plan could be built");
        require(built.graph->get_workspace_size(built.workspace_bytes), "its workspace is not known");
        return graphs_.emplace(shape, std::move(built)).first->second;
    }

    cudnnHandle_t handle_ = nullptr;
    std::map<AttentionShape, Built> graphs_;
};

std::unique_ptr<AttentionGraphs> make_graphs() {
    return std::make_unique<Graphs>();
}

int64_t plans_of(const AttentionShape& shape, const std::string& properties, int compute_capability) {
    load_cudnn();
    const auto device = std::make_shared<fe::DeviceProperties>();
    require(device->deserialize({properties.begin(), properties.end()}), "the GPU's properties");
    fe::graph::Graph graph;
    graph.set_device_properties(device).set_sm_version(compute_capability);
    Description(shape, graph).write();
    find_plans(graph, nullptr);
    return graph.get_execution_plan_count();
}

}  // namespace
}  // namespace speedrun::cuda

extern "C" const speedrun::cuda::CudnnAttention* speedrun_cudnn_attention() {
    using namespace speedrun::cuda;
    static const CudnnAttention attention = {.graphs = &make_graphs, .plans_of = &plans_of};
    return &attention;
}

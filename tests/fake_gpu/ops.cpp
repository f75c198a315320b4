// The fake GPU's ops are the CPU's on the same memory. Those that are given tensors of the host and of the
// GPU, or of two GPUs, are refused, as a real one does: that is what the fake one is for.
#include <ATen/ATen.h>
#include <ATen/core/stack.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace speedrun::fake_gpu {
namespace {

using at::Tensor;

constexpr auto kBoth = c10::DispatchKey::ADInplaceOrView;
const c10::DispatchKeySet kCpuKeys({c10::DispatchKey::CPU, kBoth, c10::DispatchKey::AutogradCPU});
const c10::DispatchKeySet kGpuKeys({c10::DispatchKey::CUDA, kBoth, c10::DispatchKey::AutogradCUDA});

// The same memory under another device; keeps `from` alive.
c10::Storage twin(const c10::Storage& from, c10::Device device) {
    c10::DataPtr data(
        const_cast<void*>(from.data()), new c10::Storage(from),
        [](void* kept) { delete static_cast<c10::Storage*>(kept); }, device);
    return {c10::Storage::use_byte_size_t(), from.nbytes(), std::move(data), c10::GetCPUAllocator(),
            /*resizable=*/true};
}

// `like` over another storage.
Tensor over(c10::Storage storage, c10::DispatchKeySet keys, const Tensor& like) {
    Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys, like.dtype());
    tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides());
    tensor.unsafeGetTensorImpl()->set_storage_offset(like.storage_offset());
    return tensor;
}

// One call of an op: its arguments become tensors of the host, its results tensors of the GPU.
class Call {
  public:
    explicit Call(std::string name) : name_(std::move(name)) {}

    Tensor argument(const Tensor& tensor) {
        if (!tensor.defined()) return tensor;
        if (tensor.is_cpu()) {
            host_ = host_ || tensor.dim() > 0;  // numbers may come from the host
            return tensor;
        }
        TORCH_CHECK(tensor.is_cuda(), name_, ": a tensor on ", tensor.device());
        TORCH_CHECK(!gpu_ || *gpu_ == tensor.device(), name_, ": tensors of two GPUs");
        gpu_ = tensor.device();
        pairs_.emplace_back(tensor, over(twin(tensor.storage(), at::kCPU), kCpuKeys, tensor));
        return pairs_.back().second;
    }
    c10::Device argument(c10::Device device) {
        if (!device.is_cuda()) return device;
        gpu_ = device.has_index() ? device : c10::Device(at::kCUDA, 0);
        return at::kCPU;
    }
    void check_devices() const {
        const bool copies = name_ == "aten::copy_";
        TORCH_CHECK(copies || !(host_ && gpu_), name_, ": tensors of the host and of a GPU");
    }
    Tensor result(const Tensor& host) const {
        if (!host.defined() || !gpu_) return host;
        for (const auto& [tensor, twin_of_it] : pairs_) {
            if (host.is_same(twin_of_it)) return written(tensor, host);
            if (host.storage().data() == tensor.storage().data() && host.storage().data() != nullptr)
                return over(tensor.storage(), kGpuKeys, host);  // a view
        }
        return over(twin(host.storage(), *gpu_), kGpuKeys, host);
    }

  private:
    // The op may have given a result of its caller's another size.
    static Tensor written(const Tensor& tensor, const Tensor& host) {
        if (tensor.sizes() == host.sizes() && tensor.storage().data() == host.storage().data()) return tensor;
        tensor.unsafeGetTensorImpl()->set_storage_keep_dtype(twin(host.storage(), tensor.device()));
        tensor.unsafeGetTensorImpl()->set_sizes_and_strides(host.sizes(), host.strides());
        return tensor;
    }

    std::string name_;
    bool host_ = false;
    std::optional<c10::Device> gpu_;
    std::vector<std::pair<Tensor, Tensor>> pairs_;  // of the GPU, of the host
};

void give(c10::IValue& value, const auto& change) {
    if (value.isTensor()) {
        value = change(value.toTensor());
    } else if (value.isTensorList()) {
        std::vector<Tensor> list = value.toTensorVector();
        for (Tensor& tensor : list) tensor = change(tensor);
        value = std::move(list);
    } else if (value.isOptionalTensorList()) {
        c10::List<std::optional<Tensor>> list;
        for (const std::optional<Tensor>& tensor : value.toOptionalTensorList())
            list.push_back(tensor ? std::optional(change(*tensor)) : std::nullopt);
        value = std::move(list);
    }
}

// The probe of a GPU's speed would take a CPU a minute.
bool is_probe(const std::string& name, const torch::jit::Stack& stack, size_t first) {
    return name == "aten::mm" && stack[first].toTensor().numel() >= int64_t{1} << 26;
}

void on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
    const auto& schema = op.schema();
    const size_t first = stack->size() - schema.arguments().size();
    if (is_probe(schema.name(), *stack, first) && schema.arguments().size() == 3) {
        const Tensor out = stack->back().toTensor();
        torch::jit::drop(*stack, 3);
        return torch::jit::push(*stack, out);
    }
    Call call(schema.name());
    for (size_t i = first; i < stack->size(); ++i) {
        c10::IValue& value = (*stack)[i];
        give(value, [&](const Tensor& tensor) { return call.argument(tensor); });
        if (value.isDevice()) value = call.argument(value.toDevice());
    }
    call.check_devices();
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
    for (size_t i = stack->size() - schema.returns().size(); i < stack->size(); ++i)
        give((*stack)[i], [&](const Tensor& tensor) { return call.result(tensor); });
}

TORCH_LIBRARY_IMPL(_, CUDA, library) {
    library.fallback(torch::CppFunction::makeFromBoxedFunction<&on_host>());
}
TORCH_LIBRARY_IMPL(aten, CUDA, library) {
    library.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&on_host>());
}

}  // namespace
}  // namespace speedrun::fake_gpu

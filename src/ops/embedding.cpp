#include "ops/embedding.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "ops/cpu/kernels.h"
#include "ops/cpu/rows.h"
#include "ops/cuda/addresses.h"
#include "ops/wide.h"
#include "util/error.h"

namespace speedrun::ops {

void reference::embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out) {
    out.copy_(table.index_select(0, ids));
}

void reference::embedding_backward(const at::Tensor& dout, const at::Tensor& ids, const at::Tensor& dtable) {
    const auto [sorted, order] = at::sort(ids, /*stable=*/true, 0, /*descending=*/false);
    const auto [unique, group, counts] = at::unique_consecutive(sorted, /*return_inverse=*/true);
    const at::Tensor ordered = wide(dout.index_select(0, order));
    at::Tensor sums = at::zeros({unique.size(0), dout.size(1)}, ordered.options());
    if (ids.is_cpu()) {
        sums.index_add_(0, group, ordered);  // one row after the other
    } else {
        sums.index_put_({group}, ordered, /*accumulate=*/true);  // CUDA sorts; index_add_ would use atomics
    }
    dtable.index_copy_(0, unique.to(at::kLong),
                       (wide(dtable.index_select(0, unique)) + sums).to(dtable.scalar_type()));
}

namespace {

void check_id(int64_t id, int64_t vocabulary) {
    if (id >= 0 && id < vocabulary) return;
    throw InternalError("embedding: token id " + std::to_string(id) + " is outside 0.." +
                        std::to_string(vocabulary - 1));
}

// Token positions ordered by (id, position), the id in the upper half.
std::vector<uint64_t> sort_by_id(std::span<const int32_t> ids, int64_t vocabulary) {
    std::vector<uint64_t> keys(ids.size());
    for (size_t t = 0; t < ids.size(); ++t) {
        check_id(ids[t], vocabulary);
        keys[t] = static_cast<uint64_t>(ids[t]) << 32 | t;
    }
    std::sort(keys.begin(), keys.end());
    return keys;
}

uint64_t id_of(uint64_t key) {
    return key >> 32;
}
int64_t position_of(uint64_t key) {
    return static_cast<int64_t>(key & 0xffffffffU);
}

// Adds the rows of one id to its row of the table.
template <class From, class To>
void add_rows(const cpu::Rows<const From>& dout, std::span<const uint64_t> keys, To* to, int64_t d) {
    if (keys.size() == 1) return cpu::add_scaled(dout[position_of(keys[0])], 1.0F, to, d);
    constexpr int64_t block_size = 1024;
    std::array<float, block_size> sum;
    for (int64_t begin = 0; begin < d; begin += block_size) {
        const int64_t size = std::min(block_size, d - begin);
        cpu::scale(dout[position_of(keys[0])] + begin, 1.0F, sum.data(), size);
        for (const uint64_t key : keys.subspan(1)) {
            cpu::add_scaled(dout[position_of(key)] + begin, 1.0F, sum.data(), size);
        }
        cpu::add_scaled(sum.data(), 1.0F, to + begin, size);
    }
}

// Every id whose first token lies in keys [begin, end); its other tokens may lie behind.
template <class From, class To>
void add_ids(const cpu::Rows<const From>& dout, std::span<const uint64_t> keys, size_t begin, size_t end,
             const cpu::Rows<To>& dtable, int64_t d) {
    while (begin > 0 && begin < end && id_of(keys[begin]) == id_of(keys[begin - 1])) ++begin;
    while (begin < end) {
        size_t next = begin + 1;
        while (next < keys.size() && id_of(keys[next]) == id_of(keys[begin])) ++next;
        add_rows(dout, keys.subspan(begin, next - begin), dtable[static_cast<int64_t>(id_of(keys[begin]))],
                 d);
        begin = next;
    }
}

}  // namespace

void embedding(const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out) {
    if (out.is_meta()) return;
    if (cuda::fused(out)) return cuda::embedding(cuda::gpu_of(out), table, ids, out);
    if (!cpu::fused(table) || !cpu::fused(out)) return reference::embedding(table, ids, out);
    const int64_t tokens = out.size(0), d = cpu::row_length(out);
    check(table.dim() == 2 && table.size(1) == d, "embedding: table is [V, d], out [T, d]");
    const int32_t* id = cpu::flat<const int32_t>(ids, tokens, "embedding: ids");
    for (int64_t t = 0; t < tokens; ++t) check_id(id[t], table.size(0));
    cpu::with_dtype(table.scalar_type(), [&]<class From>(From) {
        cpu::with_dtype(out.scalar_type(), [&]<class To>(To) {
            const auto from = cpu::rows<const From>(table, table.sizes(), "embedding: table");
            const auto to = cpu::rows<To>(out, out.sizes(), "embedding: out");
            cpu::for_each_row(tokens, d, [&](int64_t t) { cpu::scale(from[id[t]], 1.0F, to[t], d); });
        });
    });
}

void embedding_backward(const at::Tensor& dout, const at::Tensor& ids, const at::Tensor& dtable) {
    if (dout.is_meta()) return;
    if (cuda::fused(dout)) return cuda::embedding_backward(cuda::gpu_of(dout), dout, ids, dtable);
    if (!cpu::fused(dout) || !cpu::fused(dtable)) return reference::embedding_backward(dout, ids, dtable);
    const int64_t tokens = dout.size(0), d = cpu::row_length(dout);
    check(dtable.dim() == 2 && dtable.size(1) == d, "embedding_backward: dtable is [V, d], dout [T, d]");
    const int32_t* id = cpu::flat<const int32_t>(ids, tokens, "embedding_backward: ids");
    const std::vector<uint64_t> keys = sort_by_id({id, static_cast<size_t>(tokens)}, dtable.size(0));
    cpu::with_dtype(dout.scalar_type(), [&]<class From>(From) {
        cpu::with_dtype(dtable.scalar_type(), [&]<class To>(To) {
            const auto from = cpu::rows<const From>(dout, dout.sizes(), "embedding_backward: dout");
            const auto to = cpu::rows<To>(dtable, dtable.sizes(), "embedding_backward: dtable");
            cpu::Chunks(tokens, d).for_each([&](int64_t, int64_t begin, int64_t end) {
                add_ids(from, keys, static_cast<size_t>(begin), static_cast<size_t>(end), to, d);
            });
        });
    });
}

namespace cuda {
namespace {

const int32_t* token_ids(const at::Tensor& ids, int64_t tokens) {
    check(ids.scalar_type() == at::kInt && ids.numel() == tokens && ids.is_contiguous(),
          "embedding: ids are not int32 [T]");
    return ids.const_data_ptr<int32_t>();
}

}  // namespace

void embedding(const Gpu& gpu, const at::Tensor& table, const at::Tensor& ids, const at::Tensor& out) {
    check(table.dim() == 2 && out.dim() == 2 && table.size(1) == out.size(1),
          "embedding: table is [V, d], out [T, d]");
    gpu.kernels.embedding(rows(table, table.sizes(), "embedding: table"), token_ids(ids, out.size(0)),
                          rows(out, out.sizes(), "embedding: out"), shape_of(out), gpu.stream);
}

void embedding_backward(const Gpu& gpu, const at::Tensor& dout, const at::Tensor& ids,
                        const at::Tensor& dtable) {
    check(dtable.dim() == 2 && dout.dim() == 2 && dtable.size(1) == dout.size(1),
          "embedding_backward: dtable is [V, d], dout [T, d]");
    const auto [sorted, order] = at::sort(ids, /*stable=*/true, 0, /*descending=*/false);
    const int64_t chunks = (dout.size(0) + raw::kEmbeddingChunk - 1) / raw::kEmbeddingChunk;
    const at::Tensor sums = at::empty({chunks, 2, dout.size(1)}, dout.options().dtype(at::kFloat));
    gpu.kernels.embedding_backward(rows(dout, dout.sizes(), "embedding_backward: dout"),
                                   token_ids(sorted, dout.size(0)), order.const_data_ptr<int64_t>(),
                                   rows(dtable, dtable.sizes(), "embedding_backward: dtable"),
                                   sums.data_ptr<float>(), shape_of(dout), gpu.stream);
}

}  // namespace cuda

}  // namespace speedrun::ops

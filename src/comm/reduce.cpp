#include "comm/reduce.h"

#include <algorithm>
#include <array>
#include <bit>

#include "util/error.h"

namespace speedrun {
namespace {

// How an element lies in memory, and the type it is added up in.
struct Bf16 {
    using Stored = uint16_t;
    using Wide = float;
    static Wide load(Stored x) { return std::bit_cast<float>(uint32_t{x} << 16); }
    static Stored store(Wide x) {
        const uint32_t bits = std::bit_cast<uint32_t>(x);
        const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        return static_cast<Stored>(x != x ? 0x7FC0 : rounded);
    }
};
template <typename T>
struct Plain {
    using Stored = T;
    using Wide = T;
    static T load(T x) { return x; }
    static T store(T x) { return x; }
};

struct Add {
    template <typename T>
    T operator()(T a, T b) const {
        return a + b;
    }
};
struct Max {
    template <typename T>
    T operator()(T a, T b) const {
        return b > a || b != b ? b : a;
    }
};

constexpr int64_t kBlock = 1024;  // elements: the sums stay in the first-level cache

template <typename Kind, typename Op>
void combine_block(Op op, std::span<const std::byte* const> sources, int64_t from, int64_t count,
                   typename Kind::Stored* result) {
    using Stored = typename Kind::Stored;
    const auto source = [&](size_t s) { return reinterpret_cast<const Stored*>(sources[s]) + from; };
    std::array<typename Kind::Wide, kBlock> sums;
    const Stored* first = source(0);
    for (int64_t i = 0; i < count; ++i) sums[static_cast<size_t>(i)] = Kind::load(first[i]);
    for (size_t s = 1; s < sources.size(); ++s) {
        const Stored* next = source(s);
        for (int64_t i = 0; i < count; ++i) {
            auto& sum = sums[static_cast<size_t>(i)];
            sum = op(sum, Kind::load(next[i]));
        }
    }
    for (int64_t i = 0; i < count; ++i) result[from + i] = Kind::store(sums[static_cast<size_t>(i)]);
}

template <typename Kind, typename Op>
void combine_all(Op op, std::span<const std::byte* const> sources, int64_t count, std::byte* result) {
    for (int64_t from = 0; from < count; from += kBlock)
        combine_block<Kind>(op, sources, from, std::min(kBlock, count - from),
                            reinterpret_cast<typename Kind::Stored*>(result));
}

template <typename Kind>
void combine_kind(ReduceOp op, std::span<const std::byte* const> sources, int64_t count, std::byte* result) {
    if (op == ReduceOp::sum)
        combine_all<Kind>(Add(), sources, count, result);
    else
        combine_all<Kind>(Max(), sources, count, result);
}

}  // namespace

int64_t element_size(Element element) {
    switch (element) {
        case Element::bf16:
            return 2;
        case Element::f32:
            return 4;
        case Element::f64:
        case Element::i64:
            return 8;
    }
    throw InternalError("no such element");
}

void combine(Element element, ReduceOp op, std::span<const std::byte* const> sources, int64_t count,
             std::byte* result) {
    switch (element) {
        case Element::bf16:
            return combine_kind<Bf16>(op, sources, count, result);
        case Element::f32:
            return combine_kind<Plain<float>>(op, sources, count, result);
        case Element::f64:
            return combine_kind<Plain<double>>(op, sources, count, result);
        case Element::i64:
            return combine_kind<Plain<int64_t>>(op, sources, count, result);
    }
}

}  // namespace speedrun

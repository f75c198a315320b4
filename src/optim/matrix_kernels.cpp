#include "optim/matrix_kernels.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ops/cpu/convert.h"
#include "ops/cpu/rows.h"
#include "util/error.h"

namespace speedrun::kernels {
namespace {

using Decay = NorMuonConfig::Decay;
using ops::cpu::flat;
using ops::cpu::load;
using ops::cpu::store;
using ops::cpu::with_dtype;

constexpr int64_t kBlockElements =
    1 << 14;  // of one task: small against a bank, large against the cost of a task
constexpr int64_t kBlockRows = 64;

// a + weight * (b - a), by ATen's choice of the end that is exact.
struct Lerp {
    explicit Lerp(double w) : weight(static_cast<float>(w)), near_a(std::abs(weight) < 0.5F) {
        coefficient = near_a ? weight : weight - 1;
    }
    float operator()(float a, float b) const { return (near_a ? a : b) + coefficient * (b - a); }

    float weight, coefficient = 0;
    bool near_a;
};

template <class T>
float round_to(float x) {
    T stored;
    store(stored, x);
    return load(stored);
}

// x, or 0; without a branch, which GCC would not undo to vectorise.
inline float where(bool keep, float x) {
    return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & (0U - static_cast<uint32_t>(keep)));
}

template <class G, class U>
void momentum_block(G* grad, G* momentum, U* update, int64_t count, double mu, bool nesterov) {
    const Lerp to_grad(1 - mu), to_momentum(mu);
    for (int64_t i = 0; i < count; ++i) {
        const float g = load(grad[i]);
        const float m = round_to<G>(to_grad(load(momentum[i]), g));
        store(momentum[i], m);
        store(update[i], nesterov ? round_to<G>(to_momentum(g, m)) : m);
        store(grad[i], 0);
    }
}

// The matrices of one call, cut into blocks of rows. T: dtype of the update, P: of value and second moment.
template <class T, class P>
class Application {
  public:
    Application(const at::Tensor& update, const at::Tensor& second_moment, const at::Tensor& value,
                const MatrixStep& step)
        : step_(step),
          count_(value.size(0)),
          rows_(value.size(1)),
          cols_(value.size(2)),
          blocks_((rows_ + kBlockRows - 1) / kBlockRows),
          over_rows_(step.var_reduce_dim == -2) {
        update_ = flat<const T>(update, count_ * rows_ * cols_, "update");
        value_ = flat<P>(value, count_ * rows_ * cols_, "value");
        factors_.assign(static_cast<size_t>(count_ * cols_), 1.0F);
        row_scales_.assign(static_cast<size_t>(count_ * rows_), 1.0F);
        if (step.second_moment == NorMuonConfig::SecondMoment::none) return;
        second_moment_ = flat<P>(second_moment, count_ * moments(), "second moment");
        normalize();
    }

    void apply(void* copy, at::ScalarType dtype) const {
        for_each_block([&](int64_t matrix, int64_t, int64_t row) {
            if (copy == nullptr) return apply_row(matrix, row, static_cast<P*>(nullptr));
            with_dtype(dtype, [&]<class C>(C) { apply_row(matrix, row, static_cast<C*>(copy)); });
        });
    }

  private:
    int64_t moments() const { return over_rows_ ? cols_ : rows_; }

    // body(matrix, block, row) for every row, blocks in parallel.
    template <class Body>
    void for_each_block(const Body& body) const {
        at::parallel_for(0, count_ * blocks_, 1, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const int64_t matrix = i / blocks_, block = i % blocks_;
                for (int64_t row = block * kBlockRows; row < std::min(rows_, (block + 1) * kBlockRows);
                     ++row) {
                    body(matrix, block, row);
                }
            }
        });
    }

    // Factors of columns (or rows) that divide by the second moment's root and restore the matrix's norm.
    void normalize() {
        const int64_t parts = over_rows_ ? blocks_ : 1;
        std::vector<float> squares(static_cast<size_t>(count_ * parts * moments()), 0.0F);
        for_each_block([&](int64_t matrix, int64_t block, int64_t row) {
            const T* x = update_ + (matrix * rows_ + row) * cols_;
            if (over_rows_) return add_squares(x, &squares[(matrix * parts + block) * cols_]);
            squares[matrix * rows_ + row] = sum_of_squares(x);
        });
        at::parallel_for(0, count_, 1, [&](int64_t begin, int64_t end) {
            for (int64_t matrix = begin; matrix < end; ++matrix) {
                normalize(matrix, &squares[matrix * parts * moments()], parts);
            }
        });
    }

    void add_squares(const T* x, float* sums) const {
        for (int64_t col = 0; col < cols_; ++col) sums[col] += load(x[col]) * load(x[col]);
    }

    float sum_of_squares(const T* x) const {
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t col = 0; col < cols_; ++col) sum += static_cast<double>(load(x[col]) * load(x[col]));
        return static_cast<float>(sum);
    }

    void normalize(int64_t matrix, const float* squares, int64_t parts) {
        float* factors = over_rows_ ? &factors_[matrix * cols_] : &row_scales_[matrix * rows_];
        P* moment = second_moment_ + matrix * moments();
        const Lerp lerp(1 - step_.beta2);
        double before = 0, after = 0;  // squared norms
        for (int64_t i = 0; i < moments(); ++i) {
            double sum = 0;
            for (int64_t part = 0; part < parts; ++part)
                sum += static_cast<double>(squares[part * moments() + i]);
            const double mean = sum / static_cast<double>(over_rows_ ? rows_ : cols_);
            store(moment[i], lerp(load(moment[i]), static_cast<float>(mean)));
            const float v = load(moment[i]);
            factors[i] = 1 / std::sqrt(v < 1e-10F ? 1e-10F : v);  // written so that a NaN stays one
            before += sum;
            after += sum * static_cast<double>(factors[i]) * static_cast<double>(factors[i]);
        }
        if (step_.scale == NorMuonConfig::Scale::none) return;
        const double norm = std::sqrt(after);
        const auto scale = static_cast<float>(std::sqrt(before) / (norm < 1e-10 ? 1e-10 : norm));
        for (int64_t i = 0; i < moments(); ++i) factors[i] *= scale;
    }

    template <class C>
    void apply_row(int64_t matrix, int64_t row, C* copy) const {
        const int64_t at = (matrix * rows_ + row) * cols_;
        const float* factors = &factors_[matrix * cols_];
        const T* x = update_ + at;
        P* p = value_ + at;
        const int64_t cols = cols_;
        const float row_scale = row_scales_[matrix * rows_ + row], lr = static_cast<float>(step_.lr);
        const float cautious = step_.decay_kind == Decay::cautious ? static_cast<float>(step_.decay) : 0.0F;
        const float keep = step_.decay_kind == Decay::decoupled ? static_cast<float>(1 - step_.decay) : 1.0F;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) {
            const float value = load(p[i]);
            float u = load(x[i]) * (factors[i] * row_scale);
            u += where(u * value >= 0, cautious * value);
            store(p[i], keep * value - lr * u);
        }
        if (copy == nullptr) return;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) store(copy[at + i], load(p[i]));
    }

    MatrixStep step_;
    int64_t count_, rows_, cols_, blocks_;
    bool over_rows_;
    const T* update_ = nullptr;
    P* value_ = nullptr;
    P* second_moment_ = nullptr;
    std::vector<float> factors_, row_scales_;  // u = X * factor of its column * scale of its row
};

}  // namespace

void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     bool nesterov) {
    const int64_t count = grad.numel();
    with_dtype(grad.scalar_type(), [&]<class G>(G) {
        with_dtype(update.scalar_type(), [&]<class U>(U) {
            G* const g = flat<G>(grad, count, "momentum_update: grad");
            G* const m = flat<G>(momentum, count, "momentum_update: momentum");
            U* const u = flat<U>(update, count, "momentum_update: update");
            at::parallel_for(0, count, kBlockElements, [&](int64_t begin, int64_t end) {
                momentum_block(g + begin, m + begin, u + begin, end - begin, mu, nesterov);
            });
        });
    });
}

void apply_matrix_update(const at::Tensor& update, const at::Tensor& second_moment, const at::Tensor& value,
                         const at::Tensor& copy, const MatrixStep& step) {
    check(update.dim() == 3 && update.sizes() == value.sizes(), "apply_matrix_update: shapes differ");
    check(!copy.defined() || (copy.is_contiguous() && copy.sizes() == value.sizes()),
          "apply_matrix_update: copy");
    with_dtype(update.scalar_type(), [&]<class T>(T) {
        with_dtype(value.scalar_type(), [&]<class P>(P) {
            const Application<T, P> application(update, second_moment, value, step);
            copy.defined() ? application.apply(copy.data_ptr(), copy.scalar_type())
                           : application.apply(nullptr, value.scalar_type());
        });
    });
}

}  // namespace speedrun::kernels

#include "ops/optim/matrix_kernels.h"

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

namespace speedrun::ops::cpu {
namespace {

using Decay = MatrixConfig::Decay;
using Scale = MatrixConfig::Scale;

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

// momentum <- next(momentum, gradient); update <- ahead(momentum, gradient).
template <class G, class M, class U, class Next, class Ahead>
void momentum_block(G* grad, M* momentum, U* update, int64_t count, const Next& next, const Ahead& ahead) {
    for (int64_t i = 0; i < count; ++i) {
        const float g = load(grad[i]);
        const float m = round_to<M>(next(load(momentum[i]), g));
        store(momentum[i], m);
        store(update[i], ahead(m, g));
        store(grad[i], 0);
    }
}

template <class G, class M, class U>
void momentum_block(G* grad, M* momentum, U* update, int64_t count, double mu,
                    const MatrixConfig::Momentum& config) {
    const Lerp to_grad(1 - mu), to_momentum(mu);
    const auto decay = static_cast<float>(mu);
    const auto as_it_is = [](float m, float) { return m; };
    const auto lerp = [&](float m, float g) { return to_grad(m, g); };
    const auto add = [&](float m, float g) { return g + decay * m; };
    if (config.form == MatrixConfig::Momentum::Form::lerp) {
        const auto ahead = [&](float m, float g) { return round_to<M>(to_momentum(g, m)); };
        config.nesterov ? momentum_block(grad, momentum, update, count, lerp, ahead)
                        : momentum_block(grad, momentum, update, count, lerp, as_it_is);
    } else {
        const auto ahead = [&](float m, float g) { return round_to<M>(add(m, g)); };
        config.nesterov ? momentum_block(grad, momentum, update, count, add, ahead)
                        : momentum_block(grad, momentum, update, count, add, as_it_is);
    }
}

// The matrices of one call, cut into blocks of rows. T: dtype of the update, P: of the value, V: of the
// second moment.
template <class T, class P, class V>
class Application {
  public:
    Application(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                const at::Tensor& value, const MatrixStep& step)
        : step_(step),
          lr_(static_cast<float>(step.lr.now())),
          correction_(static_cast<float>(step.correction.now())),
          decay_(step.decay.now()),
          count_(value.size(0)),
          rows_(value.size(1)),
          cols_(value.size(2)),
          blocks_((rows_ + kBlockRows - 1) / kBlockRows),
          over_rows_(step.var_reduce_dim == -2) {
        update_ = flat<const T>(update, count_ * rows_ * cols_, "update");
        value_ = flat<P>(value, count_ * rows_ * cols_, "value");
        if (step.mantissa.defined()) {
            check(step.mantissa.numel() == value.numel() && step.mantissa.is_contiguous() &&
                      step.mantissa.scalar_type() == at::kShort,
                  "apply_matrix_update: mantissa");
            mantissa_ = static_cast<uint16_t*>(step.mantissa.data_ptr());
        }
        if (step.lr_muls.defined()) lr_muls_ = flat<const float>(step.lr_muls, count_, "lr_muls");
        factors_.assign(static_cast<size_t>(count_ * cols_), 1.0F);
        row_scales_.assign(static_cast<size_t>(count_ * rows_), static_cast<float>(step.factor));
        if (factors.defined()) {
            const float* factor = flat<const float>(factors, count_, "factors");
            for (int64_t row = 0; row < count_ * rows_; ++row) row_scales_[row] *= factor[row / rows_];
        }
        if (!step.moments) return;
        second_moment_ = flat<V>(second_moment, count_ * moments(), "second moment");
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

    // 1 / the root of a second moment.
    float divisor(float moment) const {
        const auto eps = static_cast<float>(step_.eps);
        const float v = correction_ == 1 ? moment : moment / correction_;
        if (step_.eps_form == MatrixConfig::EpsForm::add) return 1 / (std::sqrt(v) + eps);
        return 1 / std::sqrt(v < eps ? eps : v);  // written so that a NaN stays one
    }

    void normalize(int64_t matrix, const float* squares, int64_t parts) {
        V* moment = second_moment_ + matrix * moments();
        const Lerp lerp(1 - step_.beta2);
        std::vector<float> divisors(static_cast<size_t>(moments()));
        double before = 0, after = 0;  // squared norms
        for (int64_t i = 0; i < moments(); ++i) {
            double sum = 0;
            for (int64_t part = 0; part < parts; ++part)
                sum += static_cast<double>(squares[part * moments() + i]);
            const double mean = sum / static_cast<double>(over_rows_ ? rows_ : cols_);
            store(moment[i], lerp(load(moment[i]), static_cast<float>(mean)));
            divisors[i] = divisor(load(moment[i]));
            before += sum;
            after += sum * static_cast<double>(divisors[i]) * static_cast<double>(divisors[i]);
        }
        const float scale = norm_scale(before, after);
        float* factors = over_rows_ ? &factors_[matrix * cols_] : &row_scales_[matrix * rows_];
        for (int64_t i = 0; i < moments(); ++i) factors[i] *= divisors[i] * scale;
    }

    float norm_scale(double before, double after) const {
        if (step_.scale == Scale::none) return 1;
        const double target = step_.scale == Scale::restore_norm
                                  ? std::sqrt(before)
                                  : 0.2 * std::sqrt(static_cast<double>(rows_ * cols_));
        const double norm = std::sqrt(after);
        return static_cast<float>(target / (norm < 1e-10 ? 1e-10 : norm));
    }

    template <class C>
    void apply_row(int64_t matrix, int64_t row, C* copy) const {
        const int64_t at = (matrix * rows_ + row) * cols_;
        const float* factors = &factors_[matrix * cols_];
        const T* x = update_ + at;
        P* p = value_ + at;
        const int64_t cols = cols_;
        const float row_scale = row_scales_[matrix * rows_ + row];
        const float lr = lr_muls_ ? lr_ * lr_muls_[matrix] : lr_;
        const float cautious = step_.decay_kind == Decay::cautious ? static_cast<float>(decay_) : 0.0F;
        const float keep = step_.decay_kind == Decay::decoupled ? static_cast<float>(1 - decay_) : 1.0F;
        const auto next = [&](int64_t i, float value) {
            float u = load(x[i]) * (factors[i] * row_scale);
            u += where(u * value >= 0, cautious * value);
            return keep * value - lr * u;
        };
        if (mantissa_) {
            uint16_t* const lower = mantissa_ + at;
            for (int64_t i = 0; i < cols; ++i) {
                const uint32_t bits = std::bit_cast<uint32_t>(load(p[i])) | lower[i];
                const auto moved = std::bit_cast<uint32_t>(next(i, std::bit_cast<float>(bits)));
                lower[i] = static_cast<uint16_t>(moved);
                store(p[i], std::bit_cast<float>(moved & 0xffff0000U));
            }
        } else {
#pragma omp simd
            for (int64_t i = 0; i < cols; ++i) store(p[i], next(i, load(p[i])));
        }
        if (copy == nullptr) return;
#pragma omp simd
        for (int64_t i = 0; i < cols; ++i) store(copy[at + i], load(p[i]));
    }

    MatrixStep step_;
    float lr_, correction_;
    double decay_;
    int64_t count_, rows_, cols_, blocks_;
    bool over_rows_;
    const T* update_ = nullptr;
    P* value_ = nullptr;
    V* second_moment_ = nullptr;
    uint16_t* mantissa_ = nullptr;
    const float* lr_muls_ = nullptr;
    std::vector<float> factors_, row_scales_;  // u = X * factor of its column * scale of its row
};

}  // namespace

void momentum_update(const at::Tensor& grad, const at::Tensor& momentum, const at::Tensor& update, double mu,
                     const MatrixConfig::Momentum& config) {
    const int64_t count = grad.numel();
    with_dtype(grad.scalar_type(), [&]<class G>(G) {
        with_dtype(momentum.scalar_type(), [&]<class M>(M) {
            with_dtype(update.scalar_type(), [&]<class U>(U) {
                G* const g = flat<G>(grad, count, "momentum_update: grad");
                M* const m = flat<M>(momentum, count, "momentum_update: momentum");
                U* const u = flat<U>(update, count, "momentum_update: update");
                at::parallel_for(0, count, kBlockElements, [&](int64_t begin, int64_t end) {
                    momentum_block(g + begin, m + begin, u + begin, end - begin, mu, config);
                });
            });
        });
    });
}

void apply_matrix_update(const at::Tensor& update, const at::Tensor& factors, const at::Tensor& second_moment,
                         const at::Tensor& value, const at::Tensor& copy, const MatrixStep& step) {
    check(update.dim() == 3 && update.sizes() == value.sizes(), "apply_matrix_update: shapes differ");
    check(!copy.defined() || (copy.is_contiguous() && copy.sizes() == value.sizes()),
          "apply_matrix_update: copy");
    with_dtype(update.scalar_type(), [&]<class T>(T) {
        with_dtype(value.scalar_type(), [&]<class P>(P) {
            with_dtype(second_moment.defined() ? second_moment.scalar_type() : at::kFloat, [&]<class V>(V) {
                const Application<T, P, V> application(update, factors, second_moment, value, step);
                copy.defined() ? application.apply(copy.data_ptr(), copy.scalar_type())
                               : application.apply(nullptr, value.scalar_type());
            });
        });
    });
}

}  // namespace speedrun::ops::cpu

#pragma once
// Update rules in fp64, element by element, written from the formulas alone.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <vector>

namespace speedrun::oracle {

struct Matrix {
    size_t rows, cols;
    std::vector<double> at;  // row-major

    Matrix(size_t r, size_t c) : rows(r), cols(c), at(r * c) {}
    double& operator()(size_t r, size_t c) { return at[r * cols + c]; }
    double operator()(size_t r, size_t c) const { return at[r * cols + c]; }
};

inline Matrix times(const Matrix& a, const Matrix& b) {
    Matrix out(a.rows, b.cols);
    for (size_t i = 0; i < a.rows; ++i) {
        for (size_t k = 0; k < a.cols; ++k) {
            for (size_t j = 0; j < b.cols; ++j) out(i, j) += a(i, k) * b(k, j);
        }
    }
    return out;
}

inline Matrix transposed(const Matrix& a) {
    Matrix out(a.cols, a.rows);
    for (size_t i = 0; i < a.rows; ++i) {
        for (size_t j = 0; j < a.cols; ++j) out(j, i) = a(i, j);
    }
    return out;
}

inline double norm(const Matrix& a) {
    double sum = 0;
    for (const double x : a.at) sum += x * x;
    return std::sqrt(sum);
}

inline Matrix polar_express(Matrix x) {
    static const double table[5][3] = {{8.156554524902461, -22.48329292557795, 15.878769915207462},
                                       {4.042929935166739, -2.808917465908714, 0.5000178451051316},
                                       {3.8916678022926607, -2.772484153217685, 0.5060648178503393},
                                       {3.285753657755655, -2.3681294933425376, 0.46449024233003106},
                                       {2.3465413258596377, -1.7097828382687081, 0.42323551169305323}};
    const bool tall = x.rows > x.cols;
    if (tall) x = transposed(x);
    const double divisor = norm(x) * 1.02 + 1e-6;
    for (double& value : x.at) value /= divisor;
    for (const auto& [a, b, c] : table) {
        const Matrix gram = times(x, transposed(x)), square = times(gram, gram);
        Matrix polynomial(gram.rows, gram.cols);
        for (size_t i = 0; i < gram.at.size(); ++i) polynomial.at[i] = b * gram.at[i] + c * square.at[i];
        const Matrix product = times(polynomial, x);
        for (size_t i = 0; i < x.at.size(); ++i) x.at[i] = a * x.at[i] + product.at[i];
    }
    return tall ? transposed(x) : x;
}

// One NorMuon step of one matrix, record 43: wide storage, so one second moment per column.
struct NorMuon {
    Matrix momentum, value;
    std::vector<double> second_moment;  // one per column

    void step(const Matrix& grad, double lr, double lr_mul, double weight_decay, double beta2, double mu) {
        Matrix u = grad;
        for (size_t i = 0; i < u.at.size(); ++i) {
            momentum.at[i] += (1 - mu) * (grad.at[i] - momentum.at[i]);
            u.at[i] = grad.at[i] + mu * (momentum.at[i] - grad.at[i]);
        }
        Matrix x = polar_express(u);
        const double before = norm(x);
        for (size_t col = 0; col < x.cols; ++col) {
            double mean = 0;
            for (size_t row = 0; row < x.rows; ++row)
                mean += x(row, col) * x(row, col) / static_cast<double>(x.rows);
            second_moment[col] += (1 - beta2) * (mean - second_moment[col]);
            for (size_t row = 0; row < x.rows; ++row)
                x(row, col) /= std::sqrt(std::max(second_moment[col], 1e-10));
        }
        const double scale = before / std::max(norm(x), 1e-10);
        for (size_t i = 0; i < x.at.size(); ++i) {
            double step = x.at[i] * scale;
            if (step * value.at[i] >= 0) step += lr * weight_decay * value.at[i];
            value.at[i] -= lr * lr_mul * step;
        }
    }
};

struct Adam {
    double value = 0, m = 0, v = 0;
    int t = 0;

    void step(double g, double lr, double beta1, double beta2, double eps, double weight_decay = 0) {
        ++t;
        value *= 1 - lr * weight_decay;
        m = beta1 * m + (1 - beta1) * g;
        v = beta2 * v + (1 - beta2) * g * g;
        value -= lr * std::sqrt(1 - std::pow(beta2, t)) / (1 - std::pow(beta1, t)) * m / (std::sqrt(v) + eps);
    }
};

}  // namespace speedrun::oracle

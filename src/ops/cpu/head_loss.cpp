// With e_tv = exp(y_tv - A/2) of the capped logits y = A s, s and A being the cap's share and height,
// S_t = sum_v e_tv, W_t the sum of the weights of t's targets, w_tv that of v among them and g the gradient
// scale, the gradient of the summed loss with respect to the logits z before the cap is
//   dz_tv = g slope W_t / S_t * (e_tv - S_t w_tv / W_t) * bend(s_tv) = scale_t * q_tv.
// q knows S_t only at the targets, and the scale is a factor of the token. So one pass over the vocabulary
// makes e and q and already multiplies q by w; dx's rows are scaled at the end, and dw is the product of q^T
// and the scaled x. For a chunk of tokens this keeps q [V, chunk], never [V, T], and runs three GEMMs, each
// on a tile still in L2.
#include "ops/cpu/head_loss.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "ops/cpu/bf16.h"
#include "ops/cpu/brgemm.h"
#include "ops/cpu/softcap.h"
#include "ops/cpu/workspace.h"

namespace speedrun::ops::cpu {

namespace {

constexpr int64_t block_rows = 64;  // of the vocabulary

constexpr int64_t target_slots = most_targets + 1;  // of a token; the last one is its target's prefix

// Tokens of a chunk. Long chunks read w and dw less often; but a thread's sums of dx [chunk, d] want to stay
// in L2.
int64_t tokens_of_chunk(int64_t d) {
    constexpr int64_t shortest = 256, longest = 512, l2_elements = int64_t{1} << 17;
    return std::clamp(l2_elements / d / 16 * 16, shortest, longest);
}

int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}
size_t elements(int64_t a, int64_t b) {
    return static_cast<size_t>(a * b);
}

// Memory of one thread's share of the vocabulary, a contiguous run of blocks.
template <class T>
struct Slot {
    Workspace z_memory, packed_q_memory, packed_w_memory, dx_memory, dw_memory;
    std::vector<float> block_sums;
    std::vector<double> sums;  // S_t over the share [width]
    float* dx = nullptr;       // sum over the share of q w, unscaled [width, d]
};

template <class T>
struct Memory {
    Workspace x, packed_x, scaled_x, packed_scaled_x, q, dw;
    std::vector<Slot<T>> slots;
};

template <class T>
class HeadPass {
  public:
    HeadPass(const HeadProblem<T>& problem, const HeadGradients<T>* gradients, Memory<T>& memory)
        : p_(problem),
          out_(gradients),
          memory_(memory),
          cap_(problem.softcap),
          chunk_(tokens_of_chunk(problem.d)),
          blocks_((problem.vocab + block_rows - 1) / block_rows),
          slots_(std::min<int64_t>(at::get_num_threads(), blocks_)) {
        if (std::ssize(memory_.slots) < slots_) memory_.slots.resize(static_cast<size_t>(slots_));
        if (out_ != nullptr && out_->dw_fp32 == nullptr && p_.tokens > chunk_) {
            dw_sums_ = memory_.dw.template get<float>(elements(p_.vocab, p_.d));
        }
    }

    void run() {
        for (begin_ = 0; begin_ < p_.tokens; begin_ += chunk_) {
            prepare_chunk();
            for_each_slot([&](Slot<T>& slot, int64_t row, int64_t end) { first_pass(slot, row, end); });
            finish_tokens();
            if (out_ == nullptr) continue;
            cpu::pack_b({scaled_x_, width_, p_.d, p_.d, 1}, packed_scaled_x_, p_.d);
            for_each_slot([&](Slot<T>& slot, int64_t row, int64_t end) { second_pass(slot, row, end); });
        }
    }

  private:
    // f(slot, first row, end row), a thread a slot.
    template <class F>
    void for_each_slot(const F& f) {
        at::parallel_for(0, slots_, 1, [&](int64_t first, int64_t last) {
            const BrgemmScope scope;
            for (int64_t i = first; i < last; ++i) {
                f(memory_.slots[static_cast<size_t>(i)], i * blocks_ / slots_ * block_rows,
                  std::min(p_.vocab, (i + 1) * blocks_ / slots_ * block_rows));
            }
        });
    }

    // f(slot, target, weight) for each target of the chunk's token t that there is.
    template <class F>
    void for_each_target(int64_t t, const F& f) const {
        const int64_t in_row = std::min<int64_t>(std::ssize(p_.weights), p_.tokens - begin_ - t);
        for (int64_t k = 0; k < in_row; ++k)
            f(k, p_.targets[begin_ + t + k], p_.weights[static_cast<size_t>(k)]);
        if (const int64_t prefix = prefix_at(t); prefix >= 0) f(most_targets, prefix, p_.prefix_weight);
    }

    // -1: the target has none.
    int64_t prefix_at(int64_t t) const {
        return p_.prefix_of == nullptr ? -1 : p_.prefix_of[p_.targets[begin_ + t]];
    }

    double all_weights(int64_t t) const {
        return std::accumulate(p_.weights.begin(), p_.weights.end(),
                               prefix_at(t) >= 0 ? p_.prefix_weight : 0.0);
    }

    void prepare_chunk() {
        tokens_ = std::min(chunk_, p_.tokens - begin_);
        width_ = round_up(tokens_, 16);
        const T* x = p_.x + begin_ * p_.d;
        if (width_ != tokens_) {
            T* padded = memory_.x.template get<T>(elements(width_, p_.d));
            std::fill(std::copy_n(x, tokens_ * p_.d, padded), padded + width_ * p_.d, T(0.0F));
            x = padded;
        }
        packed_x_ = memory_.packed_x.template get<T>(elements(p_.d, width_));
        cpu::pack_b({x, p_.d, width_, 1, p_.d}, packed_x_, width_);

        by_target_.clear();
        for (int64_t t = 0; t < tokens_; ++t)
            for_each_target(t, [&](int64_t slot, int64_t target, double) {
                by_target_.emplace_back(target, t * target_slots + slot);
            });
        std::sort(by_target_.begin(), by_target_.end());
        target_z_.resize(elements(tokens_, target_slots));
        if (out_ == nullptr) return;
        scales_.resize(elements(width_, 1));
        q_ = memory_.q.template get<T>(elements(p_.vocab, width_));
        scaled_x_ = memory_.scaled_x.template get<T>(elements(width_, p_.d));
        packed_scaled_x_ = memory_.packed_scaled_x.template get<T>(elements(width_, p_.d));
    }

    void first_pass(Slot<T>& slot, int64_t row, int64_t end) {
        slot.sums.assign(elements(width_, 1), 0.0);
        slot.block_sums.resize(elements(width_, 1));
        float* const z = slot.z_memory.template get<float>(elements(block_rows, width_));
        if (out_ != nullptr) slot.dx = slot.dx_memory.template get<float>(elements(width_, p_.d));
        for (bool first = true; row < end; row += block_rows, first = false) {
            const int64_t rows = std::min(block_rows, end - row);
            T* const q = out_ == nullptr ? nullptr : q_ + row * width_;
            cpu::brgemm(rows, width_, p_.d, p_.w + row * p_.d, p_.d, packed_x_, width_, z, width_, false);
            if (p_.bias != nullptr) add_bias(z, row, rows);
            softcap_pass(cap_, z, rows, width_, q, slot.block_sums.data());
            for (size_t t = 0; t < slot.sums.size(); ++t) slot.sums[t] += slot.block_sums[t];
            for (auto it = std::lower_bound(by_target_.begin(), by_target_.end(), std::pair{row, int64_t{0}});
                 it != by_target_.end() && it->first < row + rows; ++it) {
                const int64_t at = (it->first - row) * width_ + it->second / target_slots;
                target_z_[static_cast<size_t>(it->second)] = z[at];
                if (q != nullptr) q[at] = T(0.0F);
            }
            if (q != nullptr) add_dx(slot, q, row, rows, !first);
        }
    }

    void add_bias(float* z, int64_t row, int64_t rows) const {
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t t = 0; t < width_; ++t) z[i * width_ + t] += p_.bias[row + i];
    }

    void add_dx(Slot<T>& slot, const T* q, int64_t row, int64_t rows, bool accumulate) {
        T* const left = slot.packed_q_memory.template get<T>(elements(width_, block_rows));
        cpu::pack_a({q, width_, rows, 1, width_}, left, block_rows);
        const T* right = p_.w + row * p_.d;
        if constexpr (!std::is_same_v<T, float>) {
            T* const packed = slot.packed_w_memory.template get<T>(elements(block_rows, p_.d));
            cpu::pack_b({right, rows, p_.d, p_.d, 1}, packed, p_.d);
            right = packed;
        }
        cpu::brgemm(width_, p_.d, cpu::padded_k<T>(rows), left, block_rows, right, p_.d, slot.dx, p_.d,
                    accumulate);
    }

    void finish_tokens() {
        at::parallel_for(0, tokens_, 8, [&](int64_t first, int64_t last) {
            for (int64_t t = first; t < last; ++t) finish_token(t);
        });
        if (out_ == nullptr) return;
        std::fill(scales_.begin() + tokens_, scales_.end(), 0.0F);
        std::fill(scaled_x_ + tokens_ * p_.d, scaled_x_ + width_ * p_.d, T(0.0F));
    }

    // One of a token's targets; several of its targets may be the same token.
    struct Target {
        int64_t token;
        double weight, s;  // s: share of the cap's height
        float q;
    };

    // Returns how many there are.
    size_t collect_targets(int64_t t, std::array<Target, target_slots>& targets) const {
        size_t count = 0;
        for_each_target(t, [&](int64_t slot, int64_t token, double weight) {
            const double z = target_z_[static_cast<size_t>(t * target_slots + slot)];
            const auto end = targets.begin() + count;
            const auto same = std::ranges::find(targets.begin(), end, token, &Target::token);
            if (same != end)
                same->weight += weight;
            else
                targets[count++] = {token, weight, p_.softcap.share(z), 0};
        });
        return count;
    }

    void finish_token(int64_t t) {
        const double height = p_.softcap.height();
        double sum = 0;
        for (int64_t i = 0; i < slots_; ++i)
            sum += memory_.slots[static_cast<size_t>(i)].sums[static_cast<size_t>(t)];
        std::array<Target, target_slots> memory;
        const std::span<Target> targets(memory.data(), collect_targets(t, memory));
        const double log_sum = std::log(sum) + height / 2;
        double loss = 0, normaliser = 0;
        for (const Target& target : targets) {
            loss += target.weight * (log_sum - height * target.s);
            normaliser += target.weight;
        }
        p_.loss[begin_ + t] = static_cast<float>(loss);
        if (out_ == nullptr) return;

        if (p_.keep_normaliser) normaliser = all_weights(t);
        for (auto& [token, weight, s, q] : targets) {
            q = static_cast<float>((std::exp(height * (s - 0.5)) - sum * weight / normaliser) *
                                   p_.softcap.bend(s));
            q_[token * width_ + t] = static_cast<T>(q);
        }
        scales_[static_cast<size_t>(t)] =
            static_cast<float>(out_->grad_scale * p_.softcap.slope() * normaliser / sum);
        write_dx(t, targets, scales_[static_cast<size_t>(t)]);
    }

    void write_dx(int64_t t, std::span<const Target> targets, float scale) {
        const T* const x = p_.x + (begin_ + t) * p_.d;
        T* const dx = out_->dx + (begin_ + t) * p_.d;
        for (int64_t j = 0; j < p_.d; ++j) {
            float total = 0;
            for (const Target& target : targets)
                total += target.q * static_cast<float>(p_.w[target.token * p_.d + j]);
            for (int64_t i = 0; i < slots_; ++i)
                total += memory_.slots[static_cast<size_t>(i)].dx[t * p_.d + j];
            dx[j] = static_cast<T>(scale * total);
            scaled_x_[t * p_.d + j] = static_cast<T>(scale * static_cast<float>(x[j]));
        }
    }

    void second_pass(Slot<T>& slot, int64_t row, int64_t end) {
        const bool only_chunk = p_.tokens <= chunk_, last_chunk = begin_ + chunk_ >= p_.tokens;
        float* sums = out_->dw_fp32;
        if (sums == nullptr) {
            sums = only_chunk ? slot.dw_memory.template get<float>(elements(block_rows, p_.d)) : dw_sums_;
        }
        for (; row < end; row += block_rows) {
            const int64_t rows = std::min(block_rows, end - row);
            float* const dw = out_->dw_fp32 == nullptr && only_chunk ? sums : sums + row * p_.d;
            cpu::brgemm(rows, p_.d, width_, q_ + row * width_, width_, packed_scaled_x_, p_.d, dw, p_.d,
                        out_->dw_fp32 != nullptr || begin_ > 0);
            if (out_->dbias != nullptr) add_dbias(row, rows);
            if (out_->dw_fp32 != nullptr || !last_chunk) continue;
            at::BFloat16* const to = out_->dw_bf16 + row * p_.d;
            for (int64_t i = 0; i < rows * p_.d; ++i)
                to[i] = narrow<at::BFloat16>(static_cast<float>(to[i]) + dw[i]);
        }
    }

    void add_dbias(int64_t row, int64_t rows) const {
        for (int64_t v = row; v < row + rows; ++v) {
            const T* const q = q_ + v * width_;
            float sum = 0;
            for (int64_t t = 0; t < width_; ++t)
                sum += static_cast<float>(q[t]) * scales_[static_cast<size_t>(t)];
            out_->dbias[v] += sum;
        }
    }

    HeadProblem<T> p_;
    const HeadGradients<T>* out_;
    Memory<T>& memory_;
    SoftcapPass cap_;
    int64_t chunk_, blocks_, slots_;

    // of the current chunk
    int64_t begin_ = 0, tokens_ = 0;
    int64_t width_ = 0;  // tokens_ rounded up: the added ones have x = 0 and are left out of the results
    std::vector<std::pair<int64_t, int64_t>> by_target_;  // (target, token * target_slots + slot), sorted
    std::vector<float> target_z_;                         // logits of each token's targets, before the cap
    std::vector<float> scales_;                           // scale_t [width]
    T* packed_x_ = nullptr;                               // x^T [d, width]
    T* q_ = nullptr;                                      // [vocab, width]
    T* scaled_x_ = nullptr;                               // scale_t x [width, d]
    T* packed_scaled_x_ = nullptr;
    float* dw_sums_ = nullptr;  // for a bf16 dw: the sum over chunks, so that dw is rounded once [vocab, d]
};

template <class T>
void run(const HeadProblem<T>& problem, const HeadGradients<T>* gradients) {
    thread_local Memory<T> memory;
    HeadPass<T>(problem, gradients, memory).run();
}

}  // namespace

// The large ones: q, the sum of a bf16 gradient over chunks, three copies of a chunk of x, and a slot's z, q,
// w and dx.
HeadScratch head_scratch(int64_t tokens, int64_t vocab, int64_t d, int64_t item, bool bf16_gradient) {
    constexpr int64_t wide = sizeof(float);
    if (item < wide && !has_bf16_brgemm())  // then x, w and dx are fp32
        return {head_scratch(tokens, vocab, d, wide, bf16_gradient).kept, (2 * tokens + vocab) * d * wide};
    const int64_t chunk = tokens_of_chunk(d), width = round_up(std::min(chunk, tokens), 16);
    const int64_t sums = bf16_gradient && tokens > chunk ? vocab * d * wide : 0;
    const int64_t slot = block_rows * width * (wide + item) + block_rows * d * item + width * d * wide;
    const int64_t slots = std::min<int64_t>(at::get_num_threads(), (vocab + block_rows - 1) / block_rows);
    return {.kept = vocab * width * item + sums + 3 * width * d * item + slots * slot};
}

void head_loss(const HeadProblem<float>& problem, const HeadGradients<float>* gradients) {
    run(problem, gradients);
}
void head_loss(const HeadProblem<at::BFloat16>& problem, const HeadGradients<at::BFloat16>* gradients) {
    run(problem, gradients);
}

}  // namespace speedrun::ops::cpu

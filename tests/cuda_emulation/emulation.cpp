#include <ucontext.h>
#include <csetjmp>

#include <array>
#include <deque>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace speedrun::cuda {
thread_local unsigned char dynamic_shared[cuda_emulation::kSharedBytes] __align__(128);
}

namespace cuda_emulation {
namespace {

struct Copy {
    void* to;
    const void* from;
    size_t bytes, zeros;
};

constexpr size_t kStack = 1 << 16;
constexpr int kWarp = 32;

// A context starts a fiber; from then on jumps change between it and the scheduler, which need no system
// call.
struct Fiber {
    ucontext_t context{};
    std::jmp_buf here;
    bool begun = false;
    std::unique_ptr<char[]> stack{new char[kStack]};
    dim3 index;
    int number = 0;  // linear
    bool done = false;
    const void* waits_for = nullptr;          // a barrier; nullptr: runs
    std::deque<std::vector<Copy>> copies{1};  // of the groups that are not finished; the last is not complete
};

// Of the threads of a block or a warp that have not ended.
struct Barrier {
    int alive = 0, arrived = 0;
};

struct Warp {
    Barrier barrier;
    std::array<std::array<char, 16>, kWarp> given{};
    std::array<bool, kWarp> has_given{};
};

// The block that runs. Fibers need it from everywhere, as threads need their registers.
struct Block {
    std::vector<Fiber>& fibers;
    std::vector<Warp> warps;
    Barrier barrier;
    std::jmp_buf scheduler;
    Fiber* current = nullptr;
    const std::function<void()>* thread = nullptr;
};
thread_local Block* running = nullptr;

void yield() {
    Fiber* const self = running->current;
    if (_setjmp(self->here) == 0) std::longjmp(running->scheduler, 1);
}

void go_on(Fiber& fiber) {
    running->current = &fiber;
    threadIdx = fiber.index;
    if (_setjmp(running->scheduler) != 0) return;
    if (fiber.begun) std::longjmp(fiber.here, 1);
    fiber.begun = true;
    ::setcontext(&fiber.context);
}

void open_if_complete(Barrier& barrier) {
    if (barrier.arrived == 0 || barrier.arrived < barrier.alive) return;
    barrier.arrived = 0;
    for (Fiber& fiber : running->fibers)
        if (fiber.waits_for == &barrier) fiber.waits_for = nullptr;
}

void wait(Barrier& barrier) {
    running->current->waits_for = &barrier;
    ++barrier.arrived;
    open_if_complete(barrier);
    while (running->current->waits_for) yield();
}

Warp& own_warp() {
    return running->warps[static_cast<size_t>(running->current->number / kWarp)];
}

void live() {
    (*running->thread)();
    Fiber& self = *running->current;
    self.done = true;
    for (Barrier* barrier : {&running->barrier, &own_warp().barrier}) {
        --barrier->alive;
        open_if_complete(*barrier);
    }
    yield();
}

void start(Block& block, Fiber& fiber) {
    fiber.done = fiber.begun = false;
    fiber.waits_for = nullptr;
    fiber.copies.assign(1, {});
    ::getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    ::makecontext(&fiber.context, &live, 0);
    ++block.barrier.alive;
    ++block.warps[static_cast<size_t>(fiber.number / kWarp)].barrier.alive;
}

void run_block(Block& block) {
    block.warps.assign((block.fibers.size() + kWarp - 1) / kWarp, {});
    block.barrier = {};
    for (Fiber& fiber : block.fibers) start(block, fiber);
    for (bool some = true; some;) {
        some = false;
        bool progress = false;
        for (Fiber& fiber : block.fibers) {
            if (fiber.done) continue;
            some = true;
            if (fiber.waits_for) continue;
            progress = true;
            go_on(fiber);
        }
        if (some && !progress) throw std::logic_error("the threads of a block wait for each other for ever");
    }
}

}  // namespace

void run(dim3 grid, dim3 block, const std::function<void()>& thread) {
    std::vector<Fiber> fibers(block.x * block.y * block.z);
    for (size_t i = 0; i < fibers.size(); ++i) {
        const auto number = static_cast<unsigned>(i);
        fibers[i].number = static_cast<int>(i);
        fibers[i].index = {number % block.x, number / block.x % block.y, number / block.x / block.y};
    }
    Block state{
        .fibers = fibers, .warps = {}, .barrier = {}, .scheduler = {}, .current = nullptr, .thread = &thread};
    running = &state;
    blockDim = block;
    gridDim = grid;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                blockIdx = {x, y, z};
                run_block(state);
            }
    running = nullptr;
}

void block_barrier() {
    wait(running->barrier);
}

int lane() {
    return running->current->number % kWarp;
}

void copy_later(void* to, const void* from, size_t bytes, size_t zeros) {
    if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || reinterpret_cast<uintptr_t>(from) % bytes != 0)
        throw std::logic_error("an asynchronous copy that is not aligned");
    running->current->copies.back().push_back({to, from, bytes, zeros});
}

void commit_copies() {
    running->current->copies.emplace_back();
}

void finish_copies(size_t unfinished_groups) {
    auto& groups = running->current->copies;
    for (; groups.size() > unfinished_groups + 1; groups.pop_front())
        for (const Copy& copy : groups.front()) {
            std::memcpy(copy.to, copy.from, copy.bytes - copy.zeros);
            std::memset(static_cast<char*>(copy.to) + copy.bytes - copy.zeros, 0, copy.zeros);
        }
}

namespace {
std::map<const void*, size_t> allowances;
}

void allow_shared(const void* kernel, size_t bytes) {
    allowances[kernel] = bytes;
}

size_t allowed_shared(const void* kernel) {
    const auto found = allowances.find(kernel);
    return found == allowances.end() ? 48 << 10 : found->second;
}

void exchange(void* value, size_t bytes, int source_lane) {
    Warp& warp = own_warp();
    const auto self = static_cast<size_t>(lane()), source = static_cast<size_t>(source_lane);
    if (bytes > warp.given[self].size() || source >= kWarp)
        throw std::logic_error("shuffle: no such lane or type");
    std::memcpy(warp.given[self].data(), value, bytes);
    warp.has_given[self] = true;
    wait(warp.barrier);
    if (!warp.has_given[source])
        throw std::logic_error("shuffle: lane " + std::to_string(source) + " takes no part");
    std::memcpy(value, warp.given[source].data(), bytes);
    wait(warp.barrier);
    warp.has_given[self] = false;
}

}  // namespace cuda_emulation

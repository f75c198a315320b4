// One rank of the collectives' tests: started by mpirun, `comm_collectives all` or `comm_collectives bits`,
// for GPUs with a second argument: `cuda`, or `host` for tensors that stay on the host. Prints what was
// wrong, and leaves with exit code 1 then.
#include <ATen/ATen.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/make_communicator.h"
#include "on_device.h"

namespace speedrun {
namespace {

using Counts = std::vector<int64_t>;

void expect(bool condition, const std::string& what) {
    if (!condition) throw std::runtime_error(what);
}

// What rank `r` holds at element `i`: whole numbers, small enough for sums over 8 ranks to be exact in bf16.
at::Tensor input(int64_t r, int64_t count, at::ScalarType dtype) {
    return ((at::arange(count, at::kLong) * 7 + r * 5) % 31 - 15).to(dtype);
}

at::Tensor sum_of_inputs(int64_t ranks, int64_t count, at::ScalarType dtype) {
    at::Tensor sum = at::zeros({count}, at::kLong);
    for (int64_t r = 0; r < ranks; ++r) sum += input(r, count, at::kLong);
    return sum.to(dtype);
}

at::Tensor max_of_inputs(int64_t ranks, int64_t count, at::ScalarType dtype) {
    at::Tensor most = input(0, count, at::kLong);
    for (int64_t r = 1; r < ranks; ++r) most = at::maximum(most, input(r, count, at::kLong));
    return most.to(dtype);
}

// Shares of every kind: equal, uneven with empty ones, all with one rank, nothing at all, larger than the
// pieces they are sent in.
std::vector<Counts> share_kinds(int64_t ranks) {
    const auto n = static_cast<size_t>(ranks);
    std::vector<Counts> kinds = {Counts(n, 64), Counts(n, 0), Counts(n, 0), Counts(n, 0), Counts(n, 0)};
    for (int64_t r = 0; r < ranks; ++r) kinds[1][static_cast<size_t>(r)] = r % 3 == 1 ? 0 : 5 + 11 * r;
    kinds[2][n - 1] = 1001;
    for (int64_t r = 0; r < ranks; ++r) kinds[4][static_cast<size_t>(r)] = r % 2 == 0 ? 300000 + r : 17;
    return kinds;
}

at::Tensor share_of(const at::Tensor& tensor, const Counts& counts, int64_t rank) {
    const int64_t from = std::accumulate(counts.begin(), counts.begin() + rank, int64_t{0});
    return tensor.narrow(0, from, counts[static_cast<size_t>(rank)]);
}

int64_t total(const Counts& counts) {
    return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// The bytes this rank must send, at least.
int64_t scatter_bytes(const Counts& counts, int64_t rank, at::ScalarType dtype) {
    return (total(counts) - counts[static_cast<size_t>(rank)]) * static_cast<int64_t>(at::elementSize(dtype));
}

void expect_sent(const Communicator& comm, int64_t before, int64_t expected, const std::string& what) {
    const int64_t sent = comm.stats().bytes_sent - before;
    expect(sent == expected,
           what + ": sent " + std::to_string(sent) + " bytes, needed " + std::to_string(expected));
}

void test_reduce_scatter(Communicator& comm) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kLong})
        for (const Counts& counts : share_kinds(comm.world_size())) {
            const at::Tensor tensor = input(comm.rank(), total(counts), dtype);
            const int64_t before = comm.stats().bytes_sent;
            comm.reduce_scatter(tensor, counts, "test")->wait();
            const at::Tensor expected = sum_of_inputs(comm.world_size(), total(counts), dtype);
            const std::string what = std::string("reduce_scatter ") + at::toString(dtype);
            expect(share_of(tensor, counts, comm.rank()).equal(share_of(expected, counts, comm.rank())),
                   what);
            expect_sent(comm, before, scatter_bytes(counts, comm.rank(), dtype), what);
        }
}

void test_all_gather(Communicator& comm) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kLong, at::kByte, at::kDouble})
        for (const Counts& counts : share_kinds(comm.world_size())) {
            const at::Tensor whole = input(3, total(counts), dtype);
            const at::Tensor tensor = at::full_like(whole, 99);
            share_of(tensor, counts, comm.rank()).copy_(share_of(whole, counts, comm.rank()));
            const int64_t before = comm.stats().bytes_sent;
            comm.all_gather(tensor, counts, "test")->wait();
            const std::string what = std::string("all_gather ") + at::toString(dtype);
            expect(tensor.equal(whole), what);
            expect_sent(comm, before,
                        counts[static_cast<size_t>(comm.rank())] * (comm.world_size() - 1) *
                            static_cast<int64_t>(at::elementSize(dtype)),
                        what);
        }
}

void test_all_reduce(Communicator& comm) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kLong, at::kDouble})
        for (const int64_t count : {0, 1, 3, 1000, 300007}) {
            const std::string what =
                std::string("all_reduce ") + at::toString(dtype) + " " + std::to_string(count);
            const at::Tensor sum = input(comm.rank(), count, dtype), most = sum.clone();
            comm.all_reduce(sum, ReduceOp::sum, "sum")->wait();
            expect(sum.equal(sum_of_inputs(comm.world_size(), count, dtype)), what + " sum");
            comm.all_reduce(most, ReduceOp::max, "max")->wait();
            expect(most.equal(max_of_inputs(comm.world_size(), count, dtype)), what + " max");
        }
    const at::Tensor scalar = at::ones({}, at::kDouble), matrix = at::ones({3, 5});
    comm.all_reduce(scalar, ReduceOp::sum, "scalar")->wait();
    comm.all_reduce(matrix, ReduceOp::sum, "matrix")->wait();
    expect(scalar.item<double>() == static_cast<double>(comm.world_size()), "a scalar");
    expect(matrix.eq(comm.world_size()).all().item<bool>(), "a matrix");
}

void test_broadcast(Communicator& comm) {
    for (int64_t root = 0; root < comm.world_size(); ++root)
        for (const int64_t count : {0, 1, 1000, 400001}) {
            const at::Tensor expected = input(root, count, at::kBFloat16);
            const at::Tensor tensor =
                comm.rank() == root ? expected.clone() : at::full({count}, 77, at::kBFloat16);
            comm.broadcast(tensor, root, "test")->wait();
            expect(tensor.equal(expected), "broadcast from " + std::to_string(root));
        }
    comm.barrier("end");
}

// What rank `from` sends rank `to`: of every kind, in both directions.
int64_t part(int64_t kind, int64_t from, int64_t to) {
    if (kind == 0) return 64;
    if (kind == 1) return (from * 3 + to) % 4 == 0 ? 0 : 5 + 11 * from + to;
    return to == 0 ? 300000 + from : 0;
}

void test_all_to_all(Communicator& comm) {
    const int64_t ranks = comm.world_size(), rank = comm.rank();
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kInt})
        for (const int64_t kind : {0, 1, 2}) {
            Counts out, in;
            std::vector<at::Tensor> sent, expected;
            for (int64_t peer = 0; peer < ranks; ++peer) {
                out.push_back(part(kind, rank, peer));
                in.push_back(part(kind, peer, rank));
                sent.push_back(input(7 * rank + peer, out.back(), dtype));
                expected.push_back(input(7 * peer + rank, in.back(), dtype));
            }
            const at::Tensor received = at::full({total(in)}, 99, dtype);
            const int64_t before = comm.stats().bytes_sent;
            comm.all_to_all(at::cat(sent), out, received, in, "test")->wait();
            const std::string what =
                std::string("all_to_all ") + at::toString(dtype) + " " + std::to_string(kind);
            expect(received.equal(at::cat(expected)), what);
            expect_sent(comm, before, scatter_bytes(out, rank, dtype), what);
        }
}

void test_many(Communicator& comm) {
    const int64_t ranks = comm.world_size(), before = comm.stats().collectives;
    const Counts counts(static_cast<size_t>(ranks), 100);
    std::vector<at::Tensor> scattered, reduced;
    std::vector<Handle> handles;
    for (int64_t i = 0; i < 200; ++i) {
        scattered.push_back(input(comm.rank() + i, total(counts), at::kFloat));
        reduced.push_back(at::full({1 + i % 7}, comm.rank() + i, at::kLong));
        handles.push_back(comm.reduce_scatter(scattered.back(), counts, "a"));
        handles.push_back(comm.all_reduce(reduced.back(), ReduceOp::sum, "b"));
        handles.push_back(comm.all_gather(scattered.back(), counts, "c"));
    }
    for (auto handle = handles.rbegin(); handle != handles.rend(); ++handle) (*handle)->wait();
    for (int64_t i = 0; i < 200; ++i) {
        at::Tensor sum = at::zeros({total(counts)});
        for (int64_t r = 0; r < ranks; ++r) sum += input(r + i, total(counts), at::kFloat);
        expect(scattered[static_cast<size_t>(i)].equal(sum), "many at once: sums");
        expect(reduced[static_cast<size_t>(i)].eq(ranks * i + ranks * (ranks - 1) / 2).all().item<bool>(),
               "many at once: small sums");
    }
    expect(comm.stats().collectives - before == 600, "600 collectives are counted");
}

// NCCL promises nothing about NaNs.
void test_nan(Communicator& comm) {
    const at::Tensor nan = at::zeros({2});
    if (comm.rank() == comm.world_size() - 1) nan[0] = NAN;
    comm.all_reduce(nan, ReduceOp::max, "nan")->wait();
    expect(nan[0].isnan().item<bool>() && nan[1].item<float>() == 0, "max of a NaN");
}

// What NCCL does not promise either: bf16 is added up in fp32 in rank order and rounded once. From the exact
// sum that is at most half a bf16 step away, and what fp32 loses: 2^-24 of the sum of magnitudes for every
// term.
void test_order(Communicator& comm) {
    const int64_t ranks = comm.world_size(), count = 40000;
    std::vector<at::Tensor> inputs;
    for (int64_t r = 0; r < ranks; ++r)
        inputs.push_back(at::sin(at::arange(count, at::kDouble) * (1.0 + 0.37 * static_cast<double>(r)))
                             .to(at::kBFloat16));
    at::Tensor fp32 = inputs[0].to(at::kFloat), exact = at::zeros({count}, at::kDouble),
               magnitude = at::zeros({count}, at::kDouble);
    for (int64_t r = 0; r < ranks; ++r) {
        const at::Tensor& x = inputs[static_cast<size_t>(r)];
        if (r > 0) fp32 += x.to(at::kFloat);
        exact += x.to(at::kDouble);
        magnitude += x.to(at::kDouble).abs();
    }
    const at::Tensor sum = inputs[static_cast<size_t>(comm.rank())].clone();
    comm.all_reduce(sum, ReduceOp::sum, "bf16")->wait();
    expect(sum.equal(fp32.to(at::kBFloat16)), "bf16 is not fp32's sum in rank order, rounded once");
    const at::Tensor error = (sum.to(at::kDouble) - exact).abs();
    const at::Tensor bound =
        exact.abs() * 0x1p-8 + magnitude * (static_cast<double>(ranks) * 0x1p-24) * (1 + 0x1p-8);
    expect(error.le(bound).all().item<bool>(), "bf16 is off by more than one rounding");
}

uint64_t digest(const at::Tensor& tensor) {
    uint64_t hash = 0xCBF29CE484222325u;
    const auto* bytes = static_cast<const unsigned char*>(tensor.data_ptr());
    for (size_t i = 0; i < tensor.nbytes(); ++i) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return hash;
}

// Prints a digest of sums that depend on the order of their terms.
void test_bits(Communicator& comm) {
    const auto turn = 1.0 + 0.7 * static_cast<double>(comm.rank());
    const at::Tensor large = at::sin(at::arange(200000, at::kFloat) * turn) * 1e3;
    const at::Tensor small = at::sin(at::arange(100, at::kFloat) * turn) * 1e3;
    comm.all_reduce(large, ReduceOp::sum, "large")->wait();
    comm.all_reduce(small, ReduceOp::sum, "small")->wait();
    const std::string line = "digest " + std::to_string(digest(large) ^ digest(small)) + "\n";
    expect(write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size()), "write");
}

std::unique_ptr<Communicator> make_for(const std::string& tensors) {
    const LaunchEnvironment environment = read_launch_environment();
    if (tensors.empty()) return make_communicator(environment, at::kCPU);
    load_cuda_half();
    const at::Device gpu(at::kCUDA, static_cast<at::DeviceIndex>(
                                        gpu_of_rank(environment, static_cast<int64_t>(at::getNumGPUs()))));
    auto comm = make_communicator(environment, gpu);
    if (tensors == "host") return comm;
    return std::make_unique<OnDevice>(std::move(comm), gpu);
}

void run(const std::string& name, const std::string& tensors) {
    const auto comm = make_for(tensors);
    if (name == "all") {
        for (const auto test : {test_reduce_scatter, test_all_gather, test_all_reduce, test_broadcast,
                                test_all_to_all, test_many})
            test(*comm);
        if (tensors.empty()) {
            test_nan(*comm);
            test_order(*comm);
        }
    }
    test_bits(*comm);
}

}  // namespace
}  // namespace speedrun

int main(int count, char** arguments) {
    try {
        speedrun::run(count > 1 ? arguments[1] : "all", count > 2 ? arguments[2] : "");
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "failed: %s\n", error.what());
        return 1;
    }
}

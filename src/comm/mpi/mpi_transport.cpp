#include "comm/mpi/mpi_transport.h"

#include <array>
#include <stdexcept>
#include <string>

#include "comm/mpi/mpi_table.h"
#include "util/error.h"
#include "util/module.h"

namespace speedrun {
namespace {

constexpr const char* kMpiModule = "libspeedrun_mpi.so";

const MpiTable& load_mpi_table() {
    return module_table<MpiTable>(kMpiModule, kMpiTableSymbol,
                                  "MPI (on Debian: libopenmpi-dev and openmpi-bin)", kMpiTableVersion);
}

class MpiTransport final : public Transport {
  public:
    explicit MpiTransport(const LaunchEnvironment& environment)
        : environment_(environment), mpi_(load_mpi_table()) {}

    void open() override {
        require(mpi_.init(&rank_, &size_), "MPI_Init_thread");
        if (rank_ == environment_.rank && size_ == environment_.world_size) return;
        throw UserError(std::string(launcher_name(environment_.launcher)) + " says rank " +
                        std::to_string(environment_.rank) + " of " + std::to_string(environment_.world_size) +
                        ", but MPI says rank " + std::to_string(rank_) + " of " + std::to_string(size_) +
                        ": " + kMpiModule + " uses " + library() +
                        ", and the ranks must be started by that MPI's mpirun, or by srun with the --mpi it "
                        "supports");
    }
    void close() override { require(mpi_.finalize(), "MPI_Finalize"); }
    int rank() const override { return rank_; }
    int size() const override { return size_; }

    uint64_t send(std::span<const std::byte> bytes, int to, int tag) override {
        uint64_t request = 0;
        require(mpi_.send(bytes.data(), static_cast<int64_t>(bytes.size()), to, tag, &request), "MPI_Isend");
        return request;
    }
    uint64_t receive(std::span<std::byte> bytes, int from, int tag) override {
        uint64_t request = 0;
        require(mpi_.receive(bytes.data(), static_cast<int64_t>(bytes.size()), from, tag, &request),
                "MPI_Irecv");
        return request;
    }
    bool test(std::span<uint64_t> requests, std::span<int64_t> moved) override {
        int done = 0;
        require(mpi_.test(requests.data(), moved.data(), static_cast<int>(requests.size()), &done),
                "MPI_Testall");
        return done != 0;
    }

  private:
    std::string library() const {
        std::array<char, 256> text{};
        mpi_.library(text.data(), static_cast<int>(text.size()));
        const std::string whole = text.data();
        return whole.substr(0, whole.find(','));
    }
    void require(int error, const char* call) const {
        if (error == 0) return;
        std::array<char, 256> text{};
        mpi_.error_text(error, text.data(), static_cast<int>(text.size()));
        throw std::runtime_error(std::string(call) + ": " + text.data());
    }

    LaunchEnvironment environment_;
    const MpiTable& mpi_;
    int rank_ = 0, size_ = 0;
};

}  // namespace

bool have_mpi() {
    return have_module(kMpiModule);
}

std::unique_ptr<Transport> make_mpi_transport(const LaunchEnvironment& environment) {
    return std::make_unique<MpiTransport>(environment);
}

void abort_mpi(int exit_code) {
    if (void* const found = loaded_module_symbol(kMpiModule, kMpiTableSymbol))
        reinterpret_cast<MpiTableFunction>(found)()->abort(exit_code);
}

}  // namespace speedrun

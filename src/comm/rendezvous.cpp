#include "comm/rendezvous.h"

#include <ATen/ATen.h>
#include <c10/util/Logging.h>

#include <algorithm>
#include <string>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "comm/cpu_communicator.h"
#include "comm/mpi/mpi_transport.h"
#include "util/error.h"

namespace speedrun {
namespace {

class MpiRendezvous final : public Rendezvous {
  public:
    explicit MpiRendezvous(const LaunchEnvironment& environment)
        : communicator_(make_cpu_communicator(make_mpi_transport(environment))) {}

    std::vector<uint8_t> from_rank_0(std::vector<uint8_t> bytes) override {
        const at::Tensor size = at::full({1}, static_cast<int64_t>(bytes.size()), at::kLong);
        communicator_->broadcast(size, 0, "rendezvous")->wait();
        bytes.resize(static_cast<size_t>(size.item<int64_t>()));
        const at::Tensor tensor =
            at::from_blob(bytes.data(), {static_cast<int64_t>(bytes.size())}, at::TensorOptions(at::kByte));
        communicator_->broadcast(tensor, 0, "rendezvous")->wait();
        return bytes;
    }

  private:
    std::unique_ptr<Communicator> communicator_;
};

// c10d prints C++ stacks on its way to the exception that tells the user all there is.
class Quiet {
  public:
    Quiet() { FLAGS_caffe2_log_level = std::max(before_, c10::GLOG_FATAL); }
    ~Quiet() { FLAGS_caffe2_log_level = before_; }
    Quiet(const Quiet&) = delete;
    Quiet& operator=(const Quiet&) = delete;

  private:
    const int before_ = FLAGS_caffe2_log_level;
};

class StoreRendezvous final : public Rendezvous {
  public:
    StoreRendezvous(const LaunchEnvironment& environment, std::chrono::milliseconds timeout)
        : environment_(environment), timeout_(timeout) {}

    std::vector<uint8_t> from_rank_0(std::vector<uint8_t> bytes) override {
        const Quiet quiet;
        try {
            return exchange(std::move(bytes));
        } catch (const c10::Error& error) {
            throw UserError("rank " + std::to_string(environment_.rank) + " of " +
                            std::to_string(environment_.world_size) +
                            " has not met the others at MASTER_ADDR=" + environment_.master_addr +
                            ", MASTER_PORT=" + std::to_string(environment_.master_port) + " within " +
                            std::to_string(timeout_.count() / 1000) +
                            " s: " + error.what_without_backtrace() +
                            "; is rank 0 on that host, and the port free and open there?");
        }
    }

  private:
    std::vector<uint8_t> exchange(std::vector<uint8_t> bytes) {
        c10d::TCPStoreOptions options;
        options.port = static_cast<uint16_t>(environment_.master_port);
        options.isServer = environment_.rank == 0 && !environment_.master_serves;
        options.waitWorkers = false;
        options.timeout = timeout_;
        c10d::TCPStore store(environment_.master_addr, options);
        store.setTimeout(timeout_);
        // A restart by torchrun meets the store of the attempt before it.
        const std::string prefix = "speedrun/" + std::to_string(environment_.attempt) + "/";
        const std::string read = prefix + "read/";
        if (environment_.rank != 0) {
            bytes = store.get(prefix + "id");
            store.set(read + std::to_string(environment_.rank), std::vector<uint8_t>{1});
            return bytes;
        }
        store.set(prefix + "id", bytes);
        // The store may end with this scope only when nobody needs it any more.
        std::vector<std::string> all;
        for (int64_t r = 1; r < environment_.world_size; ++r) all.push_back(read + std::to_string(r));
        store.wait(all, timeout_);
        return bytes;
    }

    LaunchEnvironment environment_;
    std::chrono::milliseconds timeout_;
};

}  // namespace

std::unique_ptr<Rendezvous> make_rendezvous(const LaunchEnvironment& environment,
                                            std::chrono::milliseconds timeout) {
    if (environment.mpi && have_mpi()) return std::make_unique<MpiRendezvous>(environment);
    if (!environment.master_addr.empty()) return std::make_unique<StoreRendezvous>(environment, timeout);
    throw UserError(std::string(launcher_name(environment.launcher)) + " started " +
                    std::to_string(environment.world_size) +
                    " ranks, which have no way to meet: set MASTER_ADDR and MASTER_PORT (rank 0's host and a "
                    "free port there) on all of them" +
                    (environment.mpi ? ", or build the program where MPI is installed" : ""));
}

}  // namespace speedrun

#include "comm/launch.h"

#include <charconv>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <string_view>
#include <vector>

#include "util/error.h"
#include "util/json_document.h"
#include "util/text.h"

namespace speedrun {
namespace {

// Step numbers from here on are Slurm's own (batch script, interactive shell, extern): slurm/slurm.h.
constexpr int64_t kFirstSpecialStep = 0xfffffff0;

// A variable that is set, and its value as a number.
struct Number {
    const char* name;
    int64_t value;
};

std::string shown(const char* name, const std::string& value) {
    return std::string(name) + "=" + in_quotes(value);
}
std::string shown(const Number& number) {
    return std::string(number.name) + "=" + std::to_string(number.value);
}

class Environment {
  public:
    explicit Environment(const EnvironmentLookup& lookup) : lookup_(lookup) {}

    std::optional<std::string> text(const char* name) const { return lookup_(name); }
    bool has(const char* name) const { return lookup_(name).has_value(); }

    std::optional<Number> number(const char* name) const {
        const auto value = lookup_(name);
        if (!value) return std::nullopt;
        int64_t parsed = 0;
        const char* const end = value->data() + value->size();
        const auto [stop, error] = std::from_chars(value->data(), end, parsed);
        if (error != std::errc() || stop != end || parsed < 0 ||
            parsed > std::numeric_limits<uint32_t>::max())
            throw UserError(shown(name, *value) + ": not a number; allowed: 0, 1, 2, ...");
        return Number{name, parsed};
    }

    // All of `names`, of which at least one is set: UserError unless they all are.
    void require(const char* launcher, std::initializer_list<const char*> names) const {
        std::string set, missing;
        for (const char* name : names) {
            std::string& list = has(name) ? set : missing;
            list += (list.empty() ? "" : ", ") + (has(name) ? shown(name, *text(name)) : std::string(name));
        }
        if (!missing.empty())
            throw UserError("the environment of " + std::string(launcher) + " is only half there: " + set +
                            ", but not " + missing + "; set all of them or none");
    }

  private:
    const EnvironmentLookup& lookup_;
};

void require_inside(const Number& rank, const Number& size) {
    if (rank.value >= size.value)
        throw UserError(shown(rank) + " is not a rank of " + shown(size) + "; allowed: 0 to " +
                        std::to_string(size.value - 1));
}

LaunchEnvironment from_numbers(Launcher launcher, const Number& rank, const Number& size,
                               const Number& local_rank, const Number& local_size) {
    require_inside(rank, size);
    require_inside(local_rank, local_size);
    if (local_size.value > size.value)
        throw UserError(shown(local_size) + " ranks on this host are more than all of " + shown(size));
    return {.launcher = launcher,
            .rank = rank.value,
            .world_size = size.value,
            .local_rank = local_rank.value,
            .local_size = local_size.value,
            .mpi = launcher == Launcher::open_mpi || launcher == Launcher::hydra};
}

LaunchEnvironment from_four(const Environment& environment, Launcher launcher,
                            std::initializer_list<const char*> names) {
    environment.require(launcher_name(launcher), names);
    const auto number = [&](size_t i) { return *environment.number(names.begin()[i]); };
    return from_numbers(launcher, number(0), number(1), number(2), number(3));
}

bool is_slurm_step(const Environment& environment) {
    const auto step = environment.text("SLURM_STEP_ID");
    if (!step || !environment.has("SLURM_PROCID")) return false;
    return environment.number("SLURM_STEP_ID")->value < kFirstSpecialStep;
}

// The tasks of node `node` in Slurm's notation: "4(x2),3" is 4, 4, 3.
Number tasks_of_node(const Environment& environment, int64_t node) {
    constexpr const char* kName = "SLURM_STEP_TASKS_PER_NODE";
    const std::string text = *environment.text(kName);
    const char* at = text.data();
    const char* const end = at + text.size();
    while (at != end) {
        int64_t tasks = 0, nodes = 1;
        auto parsed = std::from_chars(at, end, tasks);
        if (parsed.ec != std::errc()) break;
        at = parsed.ptr;
        if (end - at > 2 && at[0] == '(' && at[1] == 'x') {
            parsed = std::from_chars(at + 2, end, nodes);
            if (parsed.ec != std::errc() || parsed.ptr == end || *parsed.ptr != ')') break;
            at = parsed.ptr + 1;
        }
        if (node < nodes) return {kName, tasks};
        node -= nodes;
        if (at != end && *at++ != ',') break;
    }
    throw UserError(shown(kName, text) + ": no count of tasks for this node, " +
                    shown(*environment.number("SLURM_NODEID")));
}

LaunchEnvironment from_slurm(const Environment& environment) {
    environment.require(launcher_name(Launcher::slurm),
                        {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_NODEID",
                         "SLURM_STEP_TASKS_PER_NODE"});
    LaunchEnvironment launch =
        from_numbers(Launcher::slurm, *environment.number("SLURM_PROCID"),
                     *environment.number("SLURM_STEP_NUM_TASKS"), *environment.number("SLURM_LOCALID"),
                     tasks_of_node(environment, environment.number("SLURM_NODEID")->value));
    launch.mpi = environment.has("PMIX_RANK") || environment.has("PMI_RANK");
    return launch;
}

LaunchEnvironment from_torchrun(const Environment& environment) {
    LaunchEnvironment launch =
        from_four(environment, Launcher::torchrun, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"});
    if (launch.world_size > 1)
        environment.require(launcher_name(Launcher::torchrun),
                            {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"});
    return launch;
}

bool any_of(const Environment& environment, std::initializer_list<const char*> names) {
    for (const char* name : names)
        if (environment.has(name)) return true;
    return false;
}

LaunchEnvironment from_launcher(const Environment& environment) {
    if (any_of(environment, {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                             "OMPI_COMM_WORLD_LOCAL_SIZE"}))
        return from_four(environment, Launcher::open_mpi,
                         {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                          "OMPI_COMM_WORLD_LOCAL_SIZE"});
    // srun --mpi=pmi2 sets PMI_RANK as well, but not Hydra's local ranks.
    const bool slurm = is_slurm_step(environment);
    if (any_of(environment, {"MPI_LOCALRANKID", "MPI_LOCALNRANKS"}) ||
        (!slurm && any_of(environment, {"PMI_RANK", "PMI_SIZE"})))
        return from_four(environment, Launcher::hydra,
                         {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"});
    // Under `srun torchrun` Slurm's variables are those of torchrun itself.
    if (slurm && !environment.has("TORCHELASTIC_RUN_ID")) return from_slurm(environment);
    if (any_of(environment, {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"}))
        return from_torchrun(environment);
    return {};
}

// Every variable of another convention that is set must say the same.
void require_agreement(const Environment& environment, const LaunchEnvironment& launch) {
    const auto agree = [&](const char* name, int64_t expected, const char* what) {
        const auto number = environment.number(name);
        if (number && number->value != expected)
            throw UserError(shown(*number) + ", but " + launcher_name(launch.launcher) + " says " + what +
                            " " + std::to_string(expected) + "; unset it or make it agree");
    };
    agree("RANK", launch.rank, "rank");
    agree("WORLD_SIZE", launch.world_size, "world size");
    agree("LOCAL_RANK", launch.local_rank, "local rank");
    agree("LOCAL_WORLD_SIZE", launch.local_size, "local size");
    if (launch.launcher == Launcher::torchrun) return;
    agree("PMI_RANK", launch.rank, "rank");
    agree("PMI_SIZE", launch.world_size, "world size");
    agree("PMIX_RANK", launch.rank, "rank");
}

void read_master(const Environment& environment, LaunchEnvironment& launch) {
    if (!any_of(environment, {"MASTER_ADDR", "MASTER_PORT"})) return;
    environment.require("a rendezvous", {"MASTER_ADDR", "MASTER_PORT"});
    launch.master_addr = *environment.text("MASTER_ADDR");
    const Number port = *environment.number("MASTER_PORT");
    if (launch.master_addr.empty()) throw UserError("MASTER_ADDR=\"\": not a host's name or address");
    if (port.value < 1 || port.value > 65535)
        throw UserError(shown(port) + ": not a port; allowed: 1 to 65535");
    launch.master_port = port.value;
    launch.master_serves = environment.text("TORCHELASTIC_USE_AGENT_STORE") == "True";
    if (const auto restarts = environment.number("TORCHELASTIC_RESTART_COUNT"))
        launch.attempt = restarts->value;
}

}  // namespace

const char* launcher_name(Launcher launcher) {
    switch (launcher) {
        case Launcher::none:
            return "no launcher";
        case Launcher::open_mpi:
            return "mpirun (Open MPI)";
        case Launcher::hydra:
            return "mpiexec (Hydra)";
        case Launcher::slurm:
            return "srun (Slurm)";
        case Launcher::torchrun:
            return "torchrun";
    }
    throw InternalError("no such launcher");
}

LaunchEnvironment read_launch_environment(const EnvironmentLookup& lookup) {
    const Environment environment(lookup);
    LaunchEnvironment launch = from_launcher(environment);
    if (launch.launcher == Launcher::none) return launch;
    require_agreement(environment, launch);
    read_master(environment, launch);
    return launch;
}

LaunchEnvironment read_launch_environment() {
    return read_launch_environment([](const char* name) -> std::optional<std::string> {
        const char* value = std::getenv(name);
        return value ? std::optional<std::string>(value) : std::nullopt;
    });
}

int64_t gpu_of_rank(const LaunchEnvironment& environment, int64_t visible) {
    if (visible == 1) return 0;
    if (environment.local_rank < visible) return environment.local_rank;
    throw UserError("rank " + std::to_string(environment.rank) + " is number " +
                    std::to_string(environment.local_rank) + " of " + std::to_string(environment.local_size) +
                    " on its host, which shows it " + std::to_string(visible) +
                    " GPUs; start at most that many ranks on a host");
}

}  // namespace speedrun

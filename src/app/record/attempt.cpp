#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/build_info.h"
#include "app/record/attempt.h"
#include "app/record/options.h"
#include "app/verbs.h"
#include "config/config.h"
#include "model/load_config.h"
#include "record/log/run_json.h"
#include "util/atomic_file.h"
#include "util/diagnostics.h"
#include "util/exit_codes.h"
#include "util/files.h"
#include "util/folder_lock.h"
#include "util/process_setup.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

cxxopts::Options attempt_options() {
    cxxopts::Options options(
        "speedrun record attempt",
        "Makes N runs of a config, each with another seed (the first seed + 0, 1, ...), in turns with a "
        "baseline\n"
        "where one is given, collects their logs with config, summary.json and README.md, and judges them.\n"
        "Config, target, number of runs, seeds and the rule by which it may stop early are written into "
        "summary.json\n"
        "before the first run and cannot change after. The same command continues an attempt that was "
        "interrupted.\n"
        "Exit code: 0 below the target (with --baseline: a record), or a whole grid, 1 not, 2 an error, 130\n"
        "stopped by Ctrl-C.\n");
    options.positional_help("CONFIG");
    add_target_options(options);
    options.add_options()                                                                        //
        ("runs", "how many", cxxopts::value<std::string>())                                      //
        ("set", "override a value of both configs", cxxopts::value<std::vector<std::string>>())  //
        ("baseline", "config to compare with", cxxopts::value<std::string>())                    //
        ("grid",
         "KEY=V1,V2,...: an attempt for each value, for each combination where it is given again, and one of "
         "the config as it is, all with the same seeds; a table says what each changed",
         cxxopts::value<std::vector<std::string>>())                                                 //
        ("seed", "first seed, instead of the config's runtime.seed", cxxopts::value<std::string>())  //
        ("stop-rule",
         "none: all runs are made. futility:K: give up once the mean of K or more runs is not below the "
         "target. "
         "significant:K: end once p is below the level, which is then 0.01 / (N - K + 1). Both with a comma",
         cxxopts::value<std::string>()->default_value("none"))                                   //
        ("launch", "start each run with this, words parted by spaces, such as \"mpirun -n 8\"",  //
         cxxopts::value<std::string>()->default_value(""))                                       //
        ("name", "of the attempt, instead of the config's", cxxopts::value<std::string>())       //
        ("out", "folder, instead of records/DATE_NAME", cxxopts::value<std::string>())           //
        ("runs-dir", "where the run directories go, instead of runs/DATE_NAME",
         cxxopts::value<std::string>())                                                //
        ("keep-weights", "keep each run's weights in its run directory")               //
        ("json", "print summary.json at the end; what the runs print goes to stderr")  //
        ("config", "the run's JSON file", cxxopts::value<std::string>());
    options.parse_positional({"config"});
    return options;
}

std::string today() {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm local{};
    ::localtime_r(&now, &local);
    char text[16];
    return {text, std::strftime(text, sizeof text, "%Y-%m-%d", &local)};
}

// An attempt's configs, resolved.
struct Configs {
    Config attempt;
    std::optional<Config> baseline;
};

Config load_with_seed(const std::string& file, std::vector<std::string> overrides, uint64_t seed) {
    overrides.push_back("runtime.seed=" + std::to_string(seed));
    return load_config(file, overrides);
}

uint64_t first_seed(const cxxopts::ParseResult& args, const std::vector<std::string>& overrides) {
    if (args.count("seed") > 0) return whole<uint64_t>(args, "seed");
    return load_config(args["config"].as<std::string>(), overrides).runtime.seed;
}

int64_t runs_of(const cxxopts::ParseResult& args) {
    const int64_t runs = args.count("runs") > 0 ? whole<int64_t>(args, "runs") : 0;
    if (runs < 1 || runs > 1000) throw UserError("record attempt: --runs must be from 1 to 1000");
    return runs;
}

Configs load_configs(const AttemptPlan& plan) {
    Configs configs{load_with_seed(plan.attempt.config, plan.attempt.overrides, plan.first_seed),
                    std::nullopt};
    if (plan.baseline)
        configs.baseline = load_with_seed(plan.baseline->config, plan.baseline->overrides, plan.first_seed);
    return configs;
}

// records/DATE_NAME of today, or that of an earlier day where `unfinished` says that work is left.
fs::path folder_of(const std::string& wanted, const std::function<bool(const fs::path& folder)>& unfinished) {
    const fs::path records = "records";
    for (const fs::path& entry : files::list_if_there(records)) {
        const std::string name = entry.filename();
        if (name.size() == wanted.size() + 11 && name.ends_with("_" + wanted) && unfinished(entry))
            return entry;
    }
    return records / (today() + "_" + wanted);
}

bool is_unfinished_attempt(const fs::path& folder) {
    const fs::path summary = folder / "summary.json";
    return files::exists(summary) && !read_attempt(summary).result;
}

// What begin() itself leaves where it is killed.
bool is_of_the_beginning(const fs::path& entry) {
    const std::string name = entry.filename();
    return name == "config.json" || name == "baseline_config.json" ||
           (name.starts_with(".") && name.find(".json.tmp-") != std::string::npos);
}

Attempt begin(const AttemptPlan& plan, const Configs& configs, const AttemptFolders& folders) {
    if (!std::ranges::all_of(files::list(folders.record), is_of_the_beginning))
        throw UserError(folders.record.string() + ": is not empty and holds no summary.json of an attempt");
    write_atomically(folders.config(false), configs.attempt.resolved_json + "\n");
    if (configs.baseline) write_atomically(folders.config(true), configs.baseline->resolved_json + "\n");
    Attempt attempt = make_attempt(plan);
    write_attempt(attempt, folders.summary());
    return attempt;
}

Attempt begin_or_continue(const AttemptPlan& plan, const Configs& configs, const AttemptFolders& folders) {
    if (!files::exists(folders.summary())) return begin(plan, configs, folders);
    Attempt attempt = read_attempt(folders.summary());
    require_same_plan(attempt.plan, plan);
    return attempt;
}

void write_readme(const Attempt& attempt, const Configs& configs, const AttemptFolders& folders) {
    const std::string difference = configs.baseline ? config_diff(*configs.baseline, configs.attempt) : "";
    write_atomically(folders.record / "README.md",
                     attempt_readme(attempt, read_attempt_logs(attempt, folders.record), difference));
}

void print_result(const Attempt& attempt, const AttemptFolders& folders, bool json) {
    if (json) {
        std::cout << dump_json(attempt_json(attempt)) << "\n";
        return;
    }
    const AttemptLogs logs = read_attempt_logs(attempt, folders.record);
    const RunGroup* const baseline = logs.baseline ? only_group(*logs.baseline) : nullptr;
    const AttemptResult& result = *attempt.result;
    std::cout << "\n"
              << check_table(judge_all(logs.attempt, attempt.plan.target, baseline, result.significance));
    std::cout << folders.record.string() << ": " << verdict_text(result.below_target, result.record) << ": "
              << result.reason << "\n";
}

}  // namespace

std::string name_of(const cxxopts::ParseResult& args) {
    return args.count("name") > 0 ? args["name"].as<std::string>()
                                  : fs::path(args["config"].as<std::string>()).stem().string();
}

AttemptPlan plan_of(const cxxopts::ParseResult& args, const std::vector<std::string>& more) {
    auto overrides = value_or_empty<std::vector<std::string>>(args, "set");
    overrides.insert(overrides.end(), more.begin(), more.end());
    AttemptPlan plan;
    plan.attempt = {args["config"].as<std::string>(), overrides, ""};
    if (args.count("baseline") > 0) plan.baseline = {args["baseline"].as<std::string>(), overrides, ""};
    plan.name = name_of(args);
    plan.date = today();
    plan.runs = runs_of(args);
    plan.first_seed = first_seed(args, overrides);
    plan.target = timed_target_of(args);
    plan.stop_rule = parse_stop_rule(args["stop-rule"].as<std::string>(), plan.runs);
    plan.launch = args["launch"].as<std::string>();
    plan.commit = build_commit();
    return plan;
}

void check_configs(const AttemptPlan& plan) {
    load_configs(plan);
}

AttemptFolders folders_of(const cxxopts::ParseResult& args,
                          const std::function<bool(const fs::path& folder)>& unfinished) {
    AttemptFolders folders;
    folders.record = args.count("out") > 0 ? fs::path(args["out"].as<std::string>())
                                           : folder_of(name_of(args), unfinished);
    folders.runs = args.count("runs-dir") > 0 ? fs::path(args["runs-dir"].as<std::string>())
                                              : "runs" / folders.record.filename();
    return folders;
}

std::optional<Attempt> complete(AttemptPlan plan, const AttemptFolders& folders,
                                const cxxopts::ParseResult& args) {
    const Configs configs = load_configs(plan);
    plan.attempt.config_hash = configs.attempt.hash;
    if (plan.baseline) plan.baseline->config_hash = configs.baseline->hash;
    files::make_folders(folders.record);
    const FolderLock lock(folders.record);
    Attempt attempt = begin_or_continue(plan, configs, folders);
    if (attempt.result) return attempt;
    const AttemptOptions options{.keep_weights = args.count("keep-weights") > 0,
                                 .quiet = args.count("json") > 0};
    if (run_attempt(attempt, folders, options) == AttemptEnd::interrupted) {
        inform("{}: interrupted; the same command continues it", folders.record.string());
        return std::nullopt;
    }
    write_readme(attempt, configs, folders);
    return attempt;
}

namespace {

int attempt_to(const cxxopts::ParseResult& args) {
    const AttemptFolders folders = folders_of(args, is_unfinished_attempt);
    const std::optional<Attempt> attempt = complete(plan_of(args, {}), folders, args);
    if (!attempt) return kInterrupted;
    print_result(*attempt, folders, args.count("json") > 0);
    return judged(attempt->plan.baseline ? attempt->result->record : attempt->result->below_target);
}

}  // namespace

int run_record_attempt(int argc, char** argv) {
    cxxopts::Options options = attempt_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    if (args.count("config") == 0) throw UserError("record attempt: which config?" + help_hint(options));
    outlive_readers();
    if (args.count("grid") == 0) return attempt_to(args);
    return make_grid(args);
}

}  // namespace speedrun

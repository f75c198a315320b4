#include <array>
#include <sstream>
#include <utility>

#include "record/attempt/attempt.h"
#include "record/log/run_json.h"
#include "util/atomic_file.h"
#include "util/error.h"
#include "util/files.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

using State = AttemptRun::State;

constexpr int kFormat = 1;
constexpr std::array kStates = {std::pair{State::waiting, "waiting"}, std::pair{State::started, "started"},
                                std::pair{State::done, "done"}, std::pair{State::failed, "failed"}};

const char* state_name(State state) {
    for (const auto& [value, name] : kStates)
        if (value == state) return name;
    throw InternalError("a state without a name");
}

State state_named(const std::string& wanted) {
    for (const auto& [value, name] : kStates)
        if (wanted == name) return value;
    throw UserError("\"" + wanted + "\" is no state of a run");
}

Json side_json(const AttemptSide& side) {
    return {{"config", side.config}, {"set", side.overrides}, {"config_sha256", side.config_hash}};
}

AttemptSide side_of(const Json& json) {
    return {json.at("config"), json.at("set"), json.at("config_sha256")};
}

Json plan_json(const AttemptPlan& plan) {
    return {{"attempt", side_json(plan.attempt)},
            {"baseline", plan.baseline ? side_json(*plan.baseline) : Json(nullptr)},
            {"runs", plan.runs},
            {"first_seed", plan.first_seed},
            {"seeds", "run i, counted from 0, has seed first_seed + i"},
            {"target", plan.target},
            {"significance", significance_level(plan.stop_rule, plan.runs)},
            {"stop_rule", stop_rule_text(plan.stop_rule)},
            {"stop_rule_means", explain(plan.stop_rule, plan.runs)},
            {"launch", plan.launch},
            {"commit", plan.commit}};
}

AttemptPlan plan_of(const Json& all) {
    const Json& json = all.at("stated_before_the_first_run");
    AttemptPlan plan;
    plan.name = all.at("name");
    plan.date = all.at("date");
    plan.attempt = side_of(json.at("attempt"));
    if (!json.at("baseline").is_null()) plan.baseline = side_of(json.at("baseline"));
    plan.runs = json.at("runs");
    plan.first_seed = json.at("first_seed");
    plan.target = json.at("target");
    plan.stop_rule = parse_stop_rule(json.at("stop_rule"), plan.runs);
    plan.launch = json.at("launch");
    plan.commit = json.at("commit");
    return plan;
}

Json run_json(const AttemptRun& run) {
    return {{"side", run.baseline ? "baseline" : "attempt"},
            {"index", run.index},
            {"seed", run.seed},
            {"log", run.log},
            {"state", state_name(run.state)},
            {"starts", run.starts},
            {"exit_code", run.exit_code},
            {"val_loss", finite_or_null(run.val_loss)},
            {"train_time_ms", finite_or_null(run.train_time_ms)}};
}

double number_or_nan(const Json& json) {
    return json.is_null() ? kNotLogged : json.get<double>();
}

AttemptRun run_of(const Json& json) {
    AttemptRun run;
    run.baseline = json.at("side") == "baseline";
    run.index = json.at("index");
    run.seed = json.at("seed");
    run.log = json.at("log");
    run.state = state_named(json.at("state"));
    run.starts = json.at("starts");
    run.exit_code = json.at("exit_code");
    run.val_loss = number_or_nan(json.at("val_loss"));
    run.train_time_ms = number_or_nan(json.at("train_time_ms"));
    return run;
}

Json result_json(const AttemptResult& result) {
    return {{"verdict", verdict_text(result.below_target, result.record)},
            {"reason", result.reason},
            {"stopped_early", result.stopped.empty() ? Json(nullptr) : Json(result.stopped)},
            {"significance", result.significance},
            {"groups", result.groups},
            {"comparison", result.comparison}};
}

AttemptResult result_of(const Json& json) {
    AttemptResult result;
    result.record = json.at("verdict") == verdict_text(true, true);
    result.below_target = json.at("verdict") != verdict_text(false, false);
    result.reason = json.at("reason");
    if (!json.at("stopped_early").is_null()) result.stopped = json.at("stopped_early");
    result.significance = json.at("significance");
    result.groups = json.at("groups");
    result.comparison = json.at("comparison");
    return result;
}

}  // namespace

Json attempt_json(const Attempt& attempt) {
    Json json{{"format", kFormat},
              {"name", attempt.plan.name},
              {"date", attempt.plan.date},
              {"stated_before_the_first_run", plan_json(attempt.plan)},
              {"runs", Json::array()},
              {"result", attempt.result ? result_json(*attempt.result) : Json(nullptr)}};
    for (const AttemptRun& run : attempt.runs) json["runs"].push_back(run_json(run));
    return json;
}

Attempt read_attempt(const std::filesystem::path& summary) {
    constexpr uint64_t most_bytes = uint64_t{1} << 28;
    const std::string text = files::read(summary, most_bytes);
    try {
        const Json json = parse_json(text, summary.filename().string());
        if (json.at("format") != kFormat) throw UserError("its format is not " + std::to_string(kFormat));
        Attempt attempt{plan_of(json), {}, std::nullopt};
        for (const Json& run : json.at("runs")) attempt.runs.push_back(run_of(run));
        if (!json.at("result").is_null()) attempt.result = result_of(json.at("result"));
        return attempt;
    } catch (const Json::exception& error) {
        throw UserError(summary.string() + ": not the summary of an attempt: " + error.what());
    } catch (const UserError& error) {
        throw UserError(summary.string() + ": not the summary of an attempt: " + error.what());
    }
}

void write_attempt(const Attempt& attempt, const std::filesystem::path& summary) {
    write_atomically(summary, dump_json(attempt_json(attempt)) + "\n");
}

}  // namespace speedrun

#include <cstdlib>

#include "record/log/run_json.h"
#include "record/race/race.h"
#include "util/atomic_file.h"
#include "util/error.h"
#include "util/files.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

constexpr int kMostRungs = 60;  // learning rates of 1e-30 to 1e30

Json plan_json(const RacePlan& plan) {
    Json racers = Json::array();
    for (const auto& [rule, rung] : plan.racers) racers.push_back({{"rule", rule}, {"first_rung", rung}});
    return {{"racers", racers},  {"seeds", plan.seeds}, {"neighbours", plan.neighbours},
            {"more", plan.more}, {"steps", plan.steps}, {"config_sha256", plan.config_hash}};
}

RacePlan race_plan_of(const Json& json) {
    RacePlan plan;
    for (const Json& racer : json.at("racers"))
        plan.racers.push_back({racer.at("rule").get<std::string>(), racer.at("first_rung").get<int>()});
    plan.seeds = json.at("seeds").get<std::vector<uint64_t>>();
    plan.neighbours = json.at("neighbours");
    plan.more = json.at("more");
    plan.steps = json.at("steps");
    plan.config_hash = json.at("config_sha256");
    return plan;
}

Json run_json(const RaceRun& run) {
    Json validations = Json::array();
    for (const Validation& v : run.validations)
        validations.push_back(Json::array({v.step, v.loss, finite_or_null(v.train_time_ms)}));
    return {{"rule", run.rule}, {"lr", ladder_lr(run.rung)}, {"rung", run.rung},
            {"seed", run.seed}, {"diverged", run.diverged},  {"step_loss_ms", validations}};
}

RaceRun race_run_of(const Json& json) {
    RaceRun run;
    run.rule = json.at("rule");
    run.rung = json.at("rung");
    if (std::abs(run.rung) > kMostRungs) throw UserError("rung " + std::to_string(run.rung));
    run.seed = json.at("seed");
    run.diverged = json.at("diverged");
    for (const Json& v : json.at("step_loss_ms"))
        run.validations.push_back({v.at(0).get<int64_t>(), v.at(1).get<double>(),
                                   v.at(2).is_null() ? kNotLogged : v.at(2).get<double>()});
    return run;
}

Json costs_json(const std::map<std::string, RuleCosts>& costs) {
    Json json = Json::object();
    for (const auto& [rule, cost] : costs)
        json[rule] = {{"step_ms", cost.step_ms}, {"state_bytes", cost.state_bytes}};
    return json;
}

Race race_of(const Json& json) {
    Race race;
    race.plan = race_plan_of(json.at("plan"));
    if (race.plan.seeds.empty() || race.plan.racers.empty()) throw UserError("no seeds, or no racers");
    for (const Json& run : json.at("runs")) race.runs.push_back(race_run_of(run));
    for (const auto& [rule, cost] : json.at("costs").items())
        race.costs[rule] = {cost.at("step_ms").get<double>(), cost.at("state_bytes").get<int64_t>()};
    return race;
}

}  // namespace

void write_race(const Race& race, const std::filesystem::path& path) {
    Json runs = Json::array();
    for (const RaceRun& run : race.runs) runs.push_back(run_json(run));
    const Json json{{"plan", plan_json(race.plan)}, {"runs", runs}, {"costs", costs_json(race.costs)}};
    write_atomically(path, dump_json(json) + "\n");
}

Race read_race(const std::filesystem::path& path) {
    const std::string text = files::read(path, max_json_bytes);
    try {
        return race_of(parse_json(text, path.filename().string()));
    } catch (const std::exception& error) {
        throw UserError(path.string() + ": is no race: " + error.what());
    }
}

}  // namespace speedrun

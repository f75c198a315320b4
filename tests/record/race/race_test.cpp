#include "record/race/race.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "record/log_builder.h"
#include "record/race/race_report.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

// A rule is as good as its rate is near to 10^`best`.
double loss_of(const RaceEntry& entry, double best) {
    return 5 + std::abs(std::log10(ladder_lr(entry.rung)) - best) + 0.01 * static_cast<double>(entry.seed);
}

RaceRun run_of(const RaceEntry& entry, double loss) {
    return {entry.rule,
            entry.rung,
            entry.seed,
            {{0, 10, 0}, {50, loss + 1, 500}, {100, loss, 1000}},
            /*diverged=*/false};
}

RacePlan plan_of(std::vector<RacePlan::Racer> racers) {
    return {.racers = std::move(racers),
            .seeds = {1, 2},
            .neighbours = 1,
            .more = 3,
            .steps = 100,
            .config_hash = "h"};
}

Race whole_race(double best) {
    Race race{plan_of({{"adamw", -4}, {"muon", -3}}), {}, {}};
    while (const auto entry = next_run(race)) race.runs.push_back(run_of(*entry, loss_of(*entry, best)));
    return race;
}

TEST(Race, LearningRatesLieOnOneLadder) {
    for (const auto& [rung, lr] :
         {std::pair{0, 1.0}, {1, 3.0}, {2, 10.0}, {-1, 0.3}, {-2, 0.1}, {-3, 0.03}, {-8, 1e-4}}) {
        EXPECT_EQ(ladder_lr(rung), lr);
        EXPECT_EQ(nearest_rung(lr), rung);
    }
    EXPECT_EQ(nearest_rung(0.02), -3);
    EXPECT_EQ(nearest_rung(0.016), -4);  // the middle between 0.01 and 0.03, by ratio, is 0.0173
    EXPECT_EQ(nearest_rung(0.99), 0);
}

TEST(Race, SweepsUntilTheBestIsInside) {
    const Race race = whole_race(-1);  // 0.1, rung -2
    std::vector<int> muon, adamw;
    for (const RaceRun& run : race.runs)
        if (run.seed == 1) (run.rule == "muon" ? muon : adamw).push_back(run.rung);
    EXPECT_EQ(muon, (std::vector{-4, -3, -2, -1}));
    EXPECT_EQ(adamw, (std::vector{-5, -4, -3, -2, -1}));
    EXPECT_EQ(best_rung(race, "muon"), -2);
    ASSERT_EQ(race.runs.size(), 11U);  // the best ones with the second seed come last
    EXPECT_EQ(race.runs[9].rule, "adamw");
    EXPECT_EQ(race.runs[10].rule, "muon");
    for (const size_t i : {9U, 10U}) {
        EXPECT_EQ(race.runs[i].seed, 2U);
        EXPECT_EQ(race.runs[i].rung, -2);
    }
}

TEST(Race, ASweepHasAnEndBelowAndAbove) {
    EXPECT_EQ(*best_rung(whole_race(-30), "muon"), -7);  // three more than 0.01
    EXPECT_EQ(*best_rung(whole_race(30), "muon"), 1);
}

TEST(Race, DivergedRunsDriveTheRateDown) {
    Race race{plan_of({{"sgd", -3}}), {}, {}};
    while (const auto entry = next_run(race)) {
        race.runs.push_back(run_of(*entry, 5));
        if (entry->rung <= -6) continue;
        race.runs.back().diverged = true;
        race.runs.back().validations.clear();
    }
    EXPECT_EQ(best_rung(race, "sgd"), -7);  // 5 at two rates: the lower one
}

TEST(Race, WithoutNeighboursThereIsNoSweep) {
    Race race{plan_of({{"muon", -3}}), {}, {}};
    race.plan.neighbours = 0;
    while (const auto entry = next_run(race)) race.runs.push_back(run_of(*entry, 5));
    ASSERT_EQ(race.runs.size(), 2U);
    EXPECT_EQ(race.runs[1].rung, -3);
}

TEST(Race, CrossingsLieBetweenValidations) {
    const RaceRun run = run_of({"muon", -3, 1}, 5);  // 10, 6 after 50 steps, 5 after 100
    const auto crossing = first_crossing(run, 5.25);
    ASSERT_TRUE(crossing);
    EXPECT_DOUBLE_EQ(crossing->step, 87.5);
    EXPECT_DOUBLE_EQ(crossing->ms, 875);
    EXPECT_DOUBLE_EQ(first_crossing(run, 11)->step, 0);
    EXPECT_DOUBLE_EQ(first_crossing(run, 5)->step, 100);
    EXPECT_FALSE(first_crossing(run, 4.99));
}

TEST(Race, StandingsAreOrderedByLoss) {
    Race race = whole_race(-1);
    for (RaceRun& run : race.runs)
        if (run.rule == "adamw")
            for (Validation& v : run.validations) v.loss += 0.5;
    race.costs["muon"] = {12.25, 3 << 20};
    const double target = *default_target(race);
    EXPECT_NEAR(target, 5.515, 1e-12);  // of adamw: 5.51 and 5.52
    const auto all = standings(race, target);
    ASSERT_EQ(all.size(), 2U);
    EXPECT_EQ(all[0].rule, "muon");
    EXPECT_EQ(all[0].lr, 0.1);
    EXPECT_NEAR(all[0].loss.mean, 5.015, 1e-12);
    EXPECT_EQ(all[0].loss.n, 2);
    EXPECT_NEAR(all[0].steps_to->mean, 75, 1e-9);  // 6.015 at 50, 5.015 at 100, in the mean
    EXPECT_NEAR(all[0].step_ms, 10, 1e-12);
    EXPECT_EQ(all[0].costs->state_bytes, 3 << 20);
    EXPECT_FALSE(all[1].steps_to);  // one of adamw's two seeds stays above its mean
    const auto table = standings_table(all, target);
    EXPECT_EQ(table[1][0], "muon");
    EXPECT_EQ(table[1][6], "12.2");
    EXPECT_EQ(table[2][3], "–");
    EXPECT_EQ(sweep_table(race).size(), 10U);
}

TEST(Race, APageAndPicturesOfWhatThereIs) {
    Race race = whole_race(-1);
    race.runs.push_back({.rule = "muon", .rung = -2, .seed = 3, .validations = {}, .diverged = true});
    const std::string html = race_html(race, 5.5, "Race <1>", "by hand");
    for (const char* word :
         {"Race &lt;1&gt;", "adamw", "muon", "diverged", "steps to 5.500", "<svg", "by hand"})
        EXPECT_NE(html.find(word), std::string::npos) << word;
    EXPECT_EQ(race_figures(race, 5.5).size(), 2U);
}

TEST(Race, IsReadAsItWasWritten) {
    const TemporaryFolder folder;
    Race race = whole_race(-1);
    race.runs.push_back({.rule = "muon", .rung = -2, .seed = 3, .validations = {}, .diverged = true});
    race.costs["muon"] = {12.25, 1 << 20};
    write_race(race, folder / "race.json");
    const Race read = read_race(folder / "race.json");
    EXPECT_EQ(read.plan, race.plan);
    ASSERT_EQ(read.runs.size(), race.runs.size());
    EXPECT_EQ(read.runs[3].final_loss(), race.runs[3].final_loss());
    EXPECT_EQ(read.runs[3].validations[1].train_time_ms, 500);
    EXPECT_TRUE(read.runs.back().diverged);
    EXPECT_EQ(read.costs.at("muon").step_ms, 12.25);
    EXPECT_FALSE(next_run(read));
}

TEST(Race, WhatIsNoRaceIsAUserError) {
    const TemporaryFolder folder;
    expect_user_error([&] { read_race(folder / "none.json"); }, {"none.json", "cannot be read"});
    for (const char* text : {"", "[]", "{\"plan\":{}}", "{\"plan\":{\"racers\":[],\"seeds\":[]}}"}) {
        write_file(folder / "race.json", text);
        expect_user_error([&] { read_race(folder / "race.json"); }, {"race.json", "is no race"});
    }
    write_race(whole_race(-1), folder / "race.json");
    nlohmann::json json = nlohmann::json::parse(std::ifstream(folder / "race.json"));
    json["runs"][0]["rung"] = 99999;
    write_file(folder / "race.json", json.dump());
    expect_user_error([&] { read_race(folder / "race.json"); }, {"race.json", "rung"});
}

}  // namespace
}  // namespace speedrun

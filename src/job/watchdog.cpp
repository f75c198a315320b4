#include "job/watchdog.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <set>

#include "util/error.h"
#include "util/exit_codes.h"
#include "util/text.h"

namespace speedrun {
namespace {

using Ranks = std::vector<int64_t>;

const RankView& view(std::span<const RankView> ranks, int64_t rank) {
    return ranks[static_cast<size_t>(rank)];
}

Ranks select(std::span<const RankView> ranks, const std::function<bool(const RankView&)>& wanted) {
    Ranks selected;
    for (size_t rank = 0; rank < ranks.size(); ++rank)
        if (wanted(ranks[rank])) selected.push_back(static_cast<int64_t>(rank));
    return selected;
}

std::string seconds(double s) {
    return fmt::format("{:.1f} s", s);
}

// "0-6 and 9"
std::string ranges(const Ranks& ranks) {
    const std::vector<std::string> parts = number_ranges(ranks);
    std::string text;
    for (size_t i = 0; i < parts.size(); ++i)
        text += (i == 0 ? "" : i + 1 == parts.size() ? " and " : ", ") + parts[i];
    return text;
}

// "rank 3 (node7, pid 4711)" or "ranks 0-6 and 9"
std::string name(std::span<const RankView> ranks, const Ranks& named) {
    return named.size() == 1 ? rank_name(named[0], view(ranks, named[0]).process) : "ranks " + ranges(named);
}

std::string collective(const RankState& state) {
    return "collective " + std::to_string(state.begun) + ", " + state.what;
}

std::string step(const RankState& state) {
    return state.step < 0 ? "before the first step" : "in step " + std::to_string(state.step);
}

std::string what_it_does(const RankView& rank, double silence_s) {
    if (rank.finished) return "it has finished its work after collective " + std::to_string(rank.state.begun);
    if (rank.silent_s <= silence_s) return "it is " + describe(rank.state);
    return "it has not answered for " + seconds(rank.silent_s) +
           ": stopped, or its machine is gone; its last heartbeat: " + describe(rank.state);
}

// One rank: its name, `accusation`, what it does. More: all, `accusation`, and the same of each.
Cause accuse(std::span<const RankView> ranks, const Ranks& late, const std::string& accusation,
             double silence_s) {
    std::string text = name(ranks, late) + ": " + accusation;
    constexpr size_t most = 8;  // of a thousand ranks on a switch that has failed
    for (size_t i = 0; i < late.size() && i < most; ++i)
        text += "; " + (late.size() == 1 ? "" : name(ranks, {late[i]}) + ": ") +
                what_it_does(view(ranks, late[i]), silence_s);
    return {kRankLost, text};
}

std::string deadline(const Patience& patience) {
    return " (deadline " + seconds(patience.deadline_s) + ")";
}

// Ranks that are in the same collective by number, but not in the same by name.
std::optional<Cause> find_divergence(std::span<const RankView> ranks, const Ranks& waiting, int64_t stuck) {
    std::map<std::string, Ranks> by_what;
    for (const int64_t rank : waiting) by_what[view(ranks, rank).state.what].push_back(rank);
    if (by_what.size() < 2) return std::nullopt;
    std::string text = "the ranks differ in collective " + std::to_string(stuck);
    const char* before = ": ";
    for (const auto& [what, which] : by_what) {
        text += before + what + " on " + name(ranks, which);
        before = ", ";
    }
    return Cause{kProgramFault, text};
}

Cause blame(std::span<const RankView> ranks, const RankState& stuck, const Patience& patience) {
    const auto waits = [&](const RankView& r) { return r.state.inside && r.state.begun == stuck.begun; };
    const auto silent = [&](const RankView& r) { return !r.finished && r.silent_s > patience.silence_s; };
    const auto behind = [&](const RankView& r) { return r.state.begun < stuck.begun; };
    const Ranks waiting = select(ranks, [&](const RankView& r) { return waits(r) && !silent(r); });
    const std::string since = std::to_string(waiting.size()) + " of " + std::to_string(ranks.size()) +
                              " ranks have waited " + step(stuck) + " for up to " + seconds(stuck.for_s) +
                              deadline(patience);
    Ranks late = select(ranks, silent);
    if (late.empty())  // one that waits in an earlier collective itself is late by another's fault
        late = select(ranks, [&](const RankView& r) { return behind(r) && !r.state.inside; });
    if (late.empty()) late = select(ranks, behind);
    if (!late.empty())
        return accuse(ranks, late, "late for " + collective(stuck) + ", in which " + since,
                      patience.silence_s);
    if (const auto divergence = find_divergence(ranks, waiting, stuck.begun)) return *divergence;
    return {kRankLost, "no rank is late for " + collective(stuck) + ", yet in it " + since +
                           ": the network or the library between them hangs"};
}

}  // namespace

std::string rank_name(int64_t rank, const ProcessIdentity& process) {
    return "rank " + std::to_string(rank) + " (" + process.host + ", pid " + std::to_string(process.pid) +
           ")";
}

std::string describe(const RankState& state) {
    const std::string lasts = " for " + seconds(state.for_s);
    if (state.inside) return step(state) + ", in " + collective(state) + lasts;
    return step(state) + ", computing" + lasts +
           (state.begun > 0 ? " after " + collective(state) : ", before its first collective");
}

std::optional<Cause> find_late(std::span<const RankView> ranks, const Patience& patience) {
    const RankState* stuck = nullptr;
    for (const auto& [process, state, silent_s, finished] : ranks) {
        if (finished || !state.inside || state.for_s <= patience.deadline_s) continue;
        if (!stuck || state.begun < stuck->begun ||
            (state.begun == stuck->begun && state.for_s > stuck->for_s))
            stuck = &state;
    }
    if (stuck) return blame(ranks, *stuck, patience);
    const Ranks silent =
        select(ranks, [&](const RankView& r) { return !r.finished && r.silent_s > patience.deadline_s; });
    if (silent.empty()) return std::nullopt;
    return accuse(ranks, silent, "does not answer" + deadline(patience), patience.silence_s);
}

Cause rank_died(std::span<const RankView> ranks, const Ranks& dead) {
    std::string text = name(ranks, dead) + ": died";
    for (const int64_t rank : dead) {
        if (dead.size() > 1) text += "; " + name(ranks, {rank}) + ":";
        text += std::string(dead.size() > 1 ? " " : "; ") + "its last heartbeat: ";
        text += describe(view(ranks, rank).state);
    }
    return {kRankLost, text};
}

Cause first_failure(std::span<const RankView> ranks, std::span<const Failure> failures) {
    check(!failures.empty(), "a failure without a cause");
    auto first = std::ranges::find(failures, kUserError, &Failure::exit_code);
    if (first == failures.end()) first = failures.begin();
    Ranks same;
    for (const Failure& failure : failures)
        if (failure.text == first->text) same.push_back(failure.rank);
    std::ranges::sort(same);
    const std::string who = same.size() == ranks.size() ? "" : name(ranks, same) + ": ";
    return {first->exit_code, who + first->label + ": " + first->text};
}

Cause never_joined(const Ranks& missing, const std::string& waited) {
    return {kRankLost, (missing.size() == 1 ? "rank " : "ranks ") + ranges(missing) +
                           ": not heard of by rank 0 within " + waited +
                           " of the start: not started, hanging, or behind a firewall that closes ports"};
}

Cause late_to_compare(std::span<const RankView> ranks, const Ranks& late, const Patience& patience) {
    return accuse(ranks, late, "late to say what it was started with" + deadline(patience),
                  patience.silence_s);
}

std::optional<Cause> find_difference(std::span<const RankView> ranks, std::span<const Facts> facts) {
    check(ranks.size() == facts.size(), "facts of every rank");
    std::set<std::string> names;
    for (const Facts& of_rank : facts)
        for (const auto& [fact, value] : of_rank) names.insert(fact);
    std::string text;
    for (const std::string& fact : names) {
        std::map<std::string, Ranks> by_value;
        for (size_t rank = 0; rank < facts.size(); ++rank) {
            const auto found = facts[rank].find(fact);
            by_value[found == facts[rank].end() ? "(nothing)" : found->second].push_back(
                static_cast<int64_t>(rank));
        }
        if (by_value.size() == 1) continue;
        const char* before = "";
        text += (text.empty() ? "" : "; ") + fact + ": ";
        for (const auto& [value, which] : by_value) {
            text += before + value + " on " + name(ranks, which);
            before = ", ";
        }
    }
    if (text.empty()) return std::nullopt;
    return Cause{kUserError, "error: the ranks were started with differing " + text};
}

}  // namespace speedrun

#include "job/job_hub.h"

#include <algorithm>
#include <random>

#include "job/last_words.h"
#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

using namespace std::chrono_literals;

// What follows from a failure is heard of soon after it: exceptions of collectives, the same mistake found by
// every rank.
constexpr auto kGrace = 250ms;

std::string random_token() {
    std::random_device device;
    std::string token;
    for (int i = 0; i < 4; ++i) token += std::to_string(device()) + ".";
    return token;
}

}  // namespace

Hub::Hub(int64_t world_size, Reach reach, const JobTiming& timing)
    : Watch(timing),
      listener_(reach),
      strangers_(static_cast<size_t>(world_size) + Strangers::kFew),
      views_(static_cast<size_t>(world_size)),
      peers_(static_cast<size_t>(world_size)) {
    views_[0].process = this_process();
    address_.token = random_token();
    address_.ips = reach == Reach::this_machine ? loopback_addresses() : interface_addresses();
    address_.port = listener_.port();
    address_.process = views_[0].process;
}

void Hub::add_sockets(std::vector<pollfd>& sockets) {
    sockets.push_back(listener_.interest());
    strangers_.add_sockets(sockets);
    for (const Peer& peer : peers_)
        if (peer.channel) sockets.push_back(peer.channel->interest());
}

void Hub::on_mail(const ControlMessage& mail) {
    views_[0].state = activity().sample(0);
    handle(0, mail);
}

void Hub::on_sockets() {
    meet_strangers();
    std::vector<int64_t> dead;
    for (size_t rank = 1; rank < peers_.size(); ++rank) {
        Peer& peer = peers_[rank];
        if (!peer.channel) continue;
        while (const auto message = peer.channel->next()) {
            views_[rank].silent_s = 0;
            handle(static_cast<int64_t>(rank), *message);
        }
        if (views_[rank].finished) {
            peer.channel.reset();  // by which the rank knows that it was heard
        } else if (!peer.channel->open() && !peer.failed) {
            dead.push_back(static_cast<int64_t>(rank));
        }
    }
    // A user's mistake explains itself; other exceptions may be how a rank notices the death.
    const bool explained = std::ranges::find(failures_, kUserError, &Failure::exit_code) != failures_.end();
    if (!dead.empty() && !explained) end(rank_died(views_, dead));
    leave_if_all_finished();
}

void Hub::meet_strangers() {
    while (auto channel = listener_.accept()) strangers_.add(std::move(*channel));
    while (auto stranger = strangers_.next()) {
        auto& [channel, message] = *stranger;
        if (text_of(message, "kind") == "hello" && text_of(message, "token") == address_.token)
            admit(message, std::move(channel));
    }
}

void Hub::admit(const ControlMessage& hello, Channel channel) {
    const auto rank = hello.at("rank").get<size_t>();
    const auto process = hello.at("process").get<ProcessIdentity>();
    check(rank > 0 && rank < peers_.size(), "no such rank: " + std::to_string(rank));
    if (peers_[rank].channel)
        end({kUserError, "error: two processes were started as rank " + std::to_string(rank) + ": pid " +
                             std::to_string(views_[rank].process.pid) + " on " + views_[rank].process.host +
                             ", pid " + std::to_string(process.pid) + " on " + process.host});
    views_[rank].process = process;
    peers_[rank].port = hello.at("port");
    peers_[rank].channel = std::move(channel);
    peers_[rank].channel->allow_long_lines();
    peers_[rank].channel->send(message("welcome"));
    if (std::all_of(peers_.begin() + 1, peers_.end(),
                    [](const Peer& peer) { return peer.channel.has_value(); }))
        all_joined();
}

void Hub::all_joined() {
    std::vector<Member> members(peers_.size());
    for (size_t rank = 0; rank < peers_.size(); ++rank)
        members[rank] = {views_[rank].process,
                         rank == 0 ? Address{"", address_.port}
                                   : Address{peers_[rank].channel->peer_ip(), peers_[rank].port}};
    joined_ = true;
    listener_.close();
    send_to_all(message("joined", "members", members));
    joined();
}

void Hub::handle(int64_t rank, const ControlMessage& message) {
    const auto index = static_cast<size_t>(rank);
    const std::string kind = message.at("kind");
    if (kind == "state") {
        views_[index].state = message.at("state");
    } else if (kind == "facts") {
        peers_[index].facts = message.at("facts").get<Facts>();
        compare_facts();
    } else if (kind == "failed") {
        hear_failure(message.at("failure"));
    } else if (kind == "goodbye") {
        views_[index].finished = true;
    } else if (kind == "end") {  // of the lowest rank that answered, while this one was stopped
        leave(message.at("code"), *peers_[index].channel);
    } else {
        throw InternalError("a message of rank " + std::to_string(rank) + " is of no known kind: " + kind);
    }
}

void Hub::hear_failure(const Failure& failure) {
    if (failures_.empty()) set_timer(kGrace);
    failures_.push_back(failure);
    peers_[static_cast<size_t>(failure.rank)].failed = true;
    if (failures_.size() == peers_.size()) end(first_failure(views_, failures_));
}

void Hub::on_timer() {
    end(first_failure(views_, failures_));
}

void Hub::compare_facts() {
    std::vector<Facts> facts;
    for (const Peer& peer : peers_) {
        if (!peer.facts) return;
        facts.push_back(*peer.facts);
    }
    if (const auto difference = find_difference(views_, facts)) end(*difference);
    for (Peer& peer : peers_) peer.facts.reset();
    comparing_s_ = 0;
    send_to_all(message("agreed"));
    agreed();
}

void Hub::leave_if_all_finished() {
    if (joined_ && std::ranges::all_of(views_, &RankView::finished)) finished();
}

void Hub::on_tick(double elapsed_s) {
    views_[0].state = activity().sample(elapsed_s);
    for (size_t rank = 1; rank < views_.size(); ++rank) views_[rank].silent_s += elapsed_s;
    strangers_.on_tick(elapsed_s);
    listener_.on_tick();
    if (!joined_) return require_joined(elapsed_s);
    send_to_all(message("state", "state", views_[0].state));
    require_facts(elapsed_s);
    // An exception that is on its way to being the cause must not be overtaken by the waiting it brings.
    if (!failures_.empty()) return;
    // Three heartbeats: until then every rank that answers has said where it is now, and one that has come at
    // the last moment is not late.
    const auto late = find_late(views_, patience());
    alarms_ = late ? alarms_ + 1 : 0;
    if (alarms_ == 3) end(*late);
}

void Hub::require_joined(double elapsed_s) {
    joining_s_ += elapsed_s;
    const auto limit = std::chrono::duration<double>(timing().join).count();
    if (joining_s_ <= limit) return;
    std::vector<int64_t> missing;
    for (size_t rank = 1; rank < peers_.size(); ++rank)
        if (!peers_[rank].channel) missing.push_back(static_cast<int64_t>(rank));
    end(never_joined(missing, std::to_string(static_cast<int64_t>(limit)) + " s"));
}

void Hub::require_facts(double elapsed_s) {
    const auto has_facts = [](const Peer& peer) { return peer.facts.has_value(); };
    if (std::ranges::none_of(peers_, has_facts)) return;
    comparing_s_ += elapsed_s;
    if (comparing_s_ <= patience().deadline_s) return;
    std::vector<int64_t> late;
    for (size_t rank = 0; rank < peers_.size(); ++rank)
        if (!peers_[rank].facts) late.push_back(static_cast<int64_t>(rank));
    end(late_to_compare(views_, late, patience()));
}

void Hub::on_fault(const std::string& what) {
    end({kProgramFault, rank_name(0, views_[0].process) + ": internal error: watchdog: " + what});
}

void Hub::send_to_all(const ControlMessage& message) {
    for (Peer& peer : peers_)
        // One that does not read gets no more heartbeats; everything else waits for it.
        if (peer.channel && !(peer.channel->behind() && message.at("kind") == "state"))
            peer.channel->send(message);
}

void Hub::end(const Cause& cause) {
    std::vector<Companion> companions;
    std::vector<ProcessIdentity>
        hanging;  // in their exit: the connection is closed, the process perhaps not gone
    for (size_t rank = 1; rank < peers_.size(); ++rank) {
        if (!peers_[rank].channel || views_[rank].finished) continue;
        if (!peers_[rank].channel->open()) hanging.push_back(views_[rank].process);
        companions.push_back({.rank = static_cast<int64_t>(rank),
                              .process = views_[rank].process,
                              .channel = std::move(*peers_[rank].channel),
                              .silent = views_[rank].silent_s > patience().silence_s});
    }
    end_job(cause, address_.token, std::move(companions), hanging, last_call());
}

}  // namespace speedrun

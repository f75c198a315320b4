#include "job/job_spoke.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "util/error.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

using namespace std::chrono_literals;

constexpr auto kConnectTime = 3s;    // of one address
constexpr auto kAnswerTime = 600ms;  // of a rank that is asked whether it is there
constexpr auto kEndTime = 3s;        // for it to end the job then
constexpr auto kGoodbyeTime = 2s;    // for rank 0 to hear a goodbye

// Where rank 0 is to be found at the loopback alone, all ranks are on this machine.
Reach reach_of(const HubAddress& hub) {
    return std::ranges::all_of(hub.ips, is_loopback) ? Reach::this_machine : Reach::network;
}

}  // namespace

Spoke::Spoke(int64_t rank, const HubAddress& hub, const JobTiming& timing)
    : Watch(timing), rank_(rank), hub_address_(hub), listener_(reach_of(hub)) {
    hub_view_.process = hub.process;
    connect();
}

void Spoke::connect() {
    std::vector<std::string> ips = hub_address_.ips;
    const std::string loopback = "127.0.0.1";
    if (hub_address_.process.machine == this_process().machine && ips.front() != loopback)
        ips.insert(ips.begin(), loopback);
    std::string tried;
    for (const std::string& ip : ips) {
        if (try_address(ip)) return;
        tried += (tried.empty() ? "" : ", ") + ip;
        if (hub_ && !hub_->error().empty()) tried += " (" + hub_->error() + ")";
    }
    throw UserError(rank_name(rank_, this_process()) + " cannot reach " + rank_name(0, hub_address_.process) +
                    " by TCP port " + std::to_string(hub_address_.port) + " of " + tried +
                    ": firewalls must let ranks connect to ports that the system chooses");
}

bool Spoke::try_address(const std::string& ip) {
    hub_ = Channel::connect({ip, hub_address_.port});
    hub_->allow_long_lines();
    ControlMessage hello = message("hello", "token", hub_address_.token);
    hello["rank"] = rank_;
    hello["process"] = this_process();
    hello["port"] = listener_.port();
    hub_->send(hello);
    const auto until = Clock::now() + kConnectTime;
    while (hub_->open() && Clock::now() < until && hub_ip_.empty()) {
        pollfd socket = hub_->interest();
        ::poll(&socket, 1, 100);
        if (const auto answer = hub_->next(); answer && text_of(*answer, "kind") == "welcome") hub_ip_ = ip;
    }
    return !hub_ip_.empty();
}

void Spoke::add_sockets(std::vector<pollfd>& sockets) {
    sockets.push_back(listener_.interest());
    strangers_.add_sockets(sockets);
    for (const Channel& visitor : visitors_) sockets.push_back(visitor.interest());
    if (hub_->open()) sockets.push_back(hub_->interest());
    if (asking_) sockets.push_back(asking_->interest());
}

void Spoke::on_mail(const ControlMessage& mail) {
    hub_->send(message("state", "state", activity().sample(0)));  // where it fails or ends
    hub_->send(mail);
    if (mail.at("kind") != "goodbye") return;
    goodbye_said_ = true;
    if (!lost_) set_timer(kGoodbyeTime);
}

void Spoke::on_sockets() {
    while (const auto message = hub_->next()) {
        hub_view_.silent_s = 0;
        obey(*message);
    }
    hear_visitors();
    if (asking_) hear_asked();
    if (hub_->open() || lost_) return;
    if (goodbye_said_) return finished();
    without_hub(rank_died({&hub_view_, 1}, {0}));
}

void Spoke::obey(const ControlMessage& message) {
    const std::string kind = message.at("kind");
    if (kind == "state") {
        hub_view_.state = message.at("state");
    } else if (kind == "joined") {
        members_ = message.at("members").get<std::vector<Member>>();
        joined();
    } else if (kind == "agreed") {
        agreed();
    } else if (kind == "end") {
        obey_end(message, *hub_);
    } else {
        throw InternalError("a message of rank 0 is of no known kind: " + kind);
    }
}

void Spoke::obey_end(const ControlMessage& end, Channel& from) {
    if (end.contains("kill")) {
        ::usleep(static_cast<useconds_t>(std::chrono::microseconds(kKillDelay).count()));
        for (const auto& process : end["kill"].get<std::vector<ProcessIdentity>>()) kill_process(process);
    }
    const int exit_code = end.at("code");
    if (end.contains("text")) stand_by({exit_code, end["text"]}, from);
    leave(exit_code, from);
}

void Spoke::hear_visitors() {
    while (auto caller = listener_.accept()) strangers_.add(std::move(*caller));
    while (auto stranger = strangers_.next()) {
        auto& [channel, request] = *stranger;
        if (text_of(request, "token") != hub_address_.token) continue;
        answer(request, channel);
        visitors_.push_back(std::move(channel));
    }
    for (Channel& visitor : visitors_)
        while (const auto request = visitor.next()) answer(*request, visitor);
    std::erase_if(visitors_, [](const Channel& visitor) { return !visitor.open(); });
}

void Spoke::answer(const ControlMessage& request, Channel& visitor) {
    if (text_of(request, "kind") == "end") obey_end(request, visitor);
    visitor.send(message("alive"));
}

void Spoke::on_tick(double elapsed_s) {
    const RankState state = activity().sample(elapsed_s);
    strangers_.on_tick(elapsed_s);
    listener_.on_tick();
    if (lost_ || goodbye_said_) return;
    if (!hub_->behind()) hub_->send(message("state", "state", state));
    hub_view_.silent_s += elapsed_s;
    const auto late = find_late({&hub_view_, 1}, patience());
    alarms_ = late && !members_.empty() && hub_view_.silent_s > patience().deadline_s ? alarms_ + 1 : 0;
    if (alarms_ == 3) without_hub(*late);
}

void Spoke::on_timer() {
    if (leaving()) return finished();
    ask_next();
}

void Spoke::on_fault(const std::string& what) {
    hub_->send(
        message("failed", "failure", Failure{rank_, kProgramFault, "internal error", "watchdog: " + what}));
    ::sleep(1);  // rank 0 ends the job sooner; it would take the end of this connection for the cause
    leave(kProgramFault, *hub_);
}

void Spoke::without_hub(const Cause& cause) {
    lost_ = cause;
    if (members_.empty() && rank_ > 1) leave(cause.exit_code, *hub_);  // nobody to ask: rank 1 will say it
    ask_next();
}

void Spoke::ask_next() {
    if (++asked_ >= rank_) end_as_lowest();
    asking_ = Channel::connect(address_of(asked_));
    asking_->send(message("ask", "token", hub_address_.token));
    set_timer(kAnswerTime);
}

void Spoke::hear_asked() {
    while (const auto answer = asking_->next())
        if (text_of(*answer, "kind") == "alive") set_timer(kEndTime);
    if (!asking_->open()) ask_next();
}

// Rank 0 sees ranks of its own machine at the loopback; from elsewhere they are where rank 0 is.
Address Spoke::address_of(int64_t rank) const {
    const Address& address = members_[static_cast<size_t>(rank)].address;
    return {is_loopback(address.ip) ? hub_ip_ : address.ip, address.port};
}

void Spoke::end_as_lowest() {
    // Those that do not answer are told as well: the launcher may wake them, and they must not speak then.
    std::vector<Companion> companions;
    companions.push_back(
        {.rank = 0, .process = hub_address_.process, .channel = std::move(*hub_), .silent = true});
    for (int64_t rank = 1; rank < static_cast<int64_t>(members_.size()); ++rank)
        if (rank != rank_)
            companions.push_back({.rank = rank,
                                  .process = members_[static_cast<size_t>(rank)].process,
                                  .channel = Channel::connect(address_of(rank)),
                                  .silent = rank < rank_});
    end_job(*lost_, hub_address_.token, std::move(companions), {hub_address_.process}, last_call());
}

}  // namespace speedrun

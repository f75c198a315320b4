#pragma once
#include <optional>
#include <vector>

#include "job/job_watch.h"

namespace speedrun {

// Rank 0's watchdog: hears every rank, judges, and ends the job.
class Hub final : public Watch {
  public:
    Hub(int64_t world_size, Reach reach, const JobTiming& timing);
    const HubAddress& address() const { return address_; }

  protected:
    void add_sockets(std::vector<pollfd>& sockets) override;
    void on_mail(const ControlMessage& mail) override;
    void on_sockets() override;
    void on_tick(double elapsed_s) override;
    void on_timer() override;
    [[noreturn]] void on_fault(const std::string& what) override;

  private:
    struct Peer {
        std::optional<Channel> channel;
        int64_t port = 0;  // where its watchdog listens
        std::optional<Facts> facts;
        bool failed = false;
    };

    void meet_strangers();
    void admit(const ControlMessage& hello, Channel channel);
    void all_joined();
    void handle(int64_t rank, const ControlMessage& message);
    void hear_failure(const Failure& failure);
    void compare_facts();
    void leave_if_all_finished();
    void require_joined(double elapsed_s);
    void require_facts(double elapsed_s);
    void send_to_all(const ControlMessage& message);
    [[noreturn]] void end(const Cause& cause);

    HubAddress address_;
    Listener listener_;  // until all have joined
    Strangers strangers_;
    std::vector<RankView> views_;
    std::vector<Peer> peers_;  // [0], itself, has no channel
    std::vector<Failure> failures_;
    bool joined_ = false;
    int alarms_ = 0;        // ticks in a row at which some rank was late
    double joining_s_ = 0;  // waited so far
    double comparing_s_ = 0;
};

}  // namespace speedrun

#pragma once
#include <optional>
#include <vector>

#include "job/job_watch.h"
#include "job/last_words.h"

namespace speedrun {

// The watchdog of every rank but 0: tells rank 0 what its rank does, and obeys. Where rank 0 is lost, the
// lowest rank that answers ends the job: each asks those below it one after the other.
class Spoke final : public Watch {
  public:
    // Connects to rank 0: UserError where no address of it answers.
    Spoke(int64_t rank, const HubAddress& hub, const JobTiming& timing);

  protected:
    void add_sockets(std::vector<pollfd>& sockets) override;
    void on_mail(const ControlMessage& mail) override;
    void on_sockets() override;
    void on_tick(double elapsed_s) override;
    void on_timer() override;
    [[noreturn]] void on_fault(const std::string& what) override;

  private:
    void connect();
    bool try_address(const std::string& ip);
    void obey(const ControlMessage& message);
    [[noreturn]] void obey_end(const ControlMessage& end, Channel& from);
    void hear_visitors();
    void answer(const ControlMessage& request, Channel& visitor);
    // Rank 0 is lost, for the reason that `lost_` will be.
    void without_hub(const Cause& cause);
    void ask_next();
    void hear_asked();
    [[noreturn]] void end_as_lowest();
    Address address_of(int64_t rank) const;
    bool leaving() const { return goodbye_said_ && !lost_; }

    int64_t rank_;
    HubAddress hub_address_;
    std::string hub_ip_;  // by which it was reached
    std::optional<Channel> hub_;
    RankView hub_view_;
    int alarms_ = 0;  // ticks in a row at which rank 0 was silent
    Listener listener_;
    Strangers strangers_{Strangers::kFew};
    std::vector<Channel> visitors_;  // those that had the token
    std::vector<Member> members_;    // empty until all have joined
    bool goodbye_said_ = false;

    std::optional<Cause> lost_;
    int64_t asked_ = 0;  // the rank that is being asked to end the job
    std::optional<Channel> asking_;
};

}  // namespace speedrun

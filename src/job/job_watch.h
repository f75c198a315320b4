#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/activity.h"
#include "job/control_message.h"
#include "job/job.h"
#include "job/last_words.h"

namespace speedrun {

// Where rank 0's watchdog is found, as every rank learns it at the start.
struct HubAddress {
    int64_t version = 1;  // of the messages
    std::string token;
    std::vector<std::string> ips;
    int64_t port = 0;
    ProcessIdentity process;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(HubAddress, version, token, ips, port, process)

// The thread that watches for one rank, and how that rank's main thread talks to it. Rank 0 is the Hub, to
// which every other rank, a Spoke, is connected.
class Watch {
  public:
    explicit Watch(const JobTiming& timing);
    virtual ~Watch() = default;
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

    Activity& activity() { return activity_; }
    void set_deadline(double seconds) { deadline_s_ = seconds; }

    // Called by the main thread. They return when the thread says so; where the job ends, never.
    void start();
    void require_same(const Facts& facts);
    void at_end(LastCall told);
    void finish();
    [[noreturn]] void fail(const Failure& failure);

  protected:
    using Clock = std::chrono::steady_clock;

    // Called by the thread.
    virtual void add_sockets(std::vector<pollfd>& sockets) = 0;
    virtual void on_mail(const ControlMessage& mail) = 0;  // from the main thread
    virtual void on_sockets() = 0;
    virtual void on_tick(double elapsed_s) = 0;  // once a heartbeat
    virtual void on_timer() = 0;
    // One of these threw.
    [[noreturn]] virtual void on_fault(const std::string& what) = 0;

    void set_timer(std::chrono::milliseconds from_now) { timer_ = Clock::now() + from_now; }
    void joined();
    void agreed();
    void finished();
    // What at_end() has left; does nothing where that was nothing.
    LastCall last_call();
    Patience patience() const;
    double heartbeat_s() const;
    const JobTiming& timing() const { return timing_; }

  private:
    void run();
    void turn();
    void wait_for_something();
    void post(const ControlMessage& mail);
    std::vector<ControlMessage> take_mail();

    JobTiming timing_;
    Activity activity_;
    std::atomic<double> deadline_s_;

    std::mutex mutex_;  // of what follows, to wake_
    std::condition_variable changed_;
    std::vector<ControlMessage> mail_;
    LastCall told_;
    bool started_ = false, finished_ = false;
    int64_t asked_ = 0, agreed_ = 0;
    Descriptor wake_;

    std::optional<Clock::time_point> timer_;
    Clock::time_point last_tick_;
    std::thread thread_;
};

}  // namespace speedrun

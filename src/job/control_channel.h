#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace speedrun {

// One JSON object a line, over TCP: what the watchdogs of a job's ranks tell each other.
using ControlMessage = nlohmann::json;

// Owns a file descriptor. Move-only.
class Descriptor {
  public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    ~Descriptor();
    Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor& operator=(Descriptor&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    int get() const { return fd_; }

  private:
    int fd_;
};

struct Address {
    std::string ip;  // numeric, IPv4 or IPv6
    int64_t port = 0;
};

// Numeric addresses at which other machines may reach this one, IPv4 first; the loopback alone where there is
// no other.
std::vector<std::string> interface_addresses();
std::vector<std::string> loopback_addresses();  // of this machine
bool is_loopback(const std::string& ip);

// What a stranger may have sent: "" where `key` is no text.
std::string text_of(const ControlMessage& from, const char* key);

// One end of a connection. Never blocks, and takes a bounded number of bytes at a time: what the kernel does
// not take at once is kept for the next call. An error or malformed input ends the connection like its end
// does, open() says so.
class Channel {
  public:
    explicit Channel(Descriptor socket);
    // Starts to connect. What is sent meanwhile goes out once the connection stands.
    static Channel connect(const Address& address);

    void send(const ControlMessage& message);
    // Writes what is left, and returns the next message that has come. None where there is none yet, or where
    // open() is false then: no more will come.
    std::optional<ControlMessage> next();

    bool open() const { return socket_.get() >= 0; }
    bool behind() const { return open() && !unsent_.empty(); }  // the other end is slow to read
    void close();
    pollfd interest() const;
    std::string peer_ip() const;
    const std::string& error() const { return error_; }  // why it ended; "" where the other end closed it
    // Lines longer than this end the connection; a stranger's may have 64 KiB. (So do values nested deeper
    // than any message is.)
    void allow_long_lines() { longest_line_ = size_t{1} << 24; }

  private:
    void flush();
    void read();
    std::optional<ControlMessage> parse_line();
    void fail(int error);

    Descriptor socket_;
    std::string unsent_, unread_, error_;
    size_t longest_line_ = size_t{1} << 16;
};

// Who can reach a port: processes of this machine alone, or those of other machines too.
enum class Reach { this_machine, network };

// A port of this machine, chosen by the kernel.
class Listener {
  public:
    explicit Listener(Reach reach);  // InternalError with the system's reason
    int64_t port() const;
    pollfd interest() const;
    std::optional<Channel> accept();  // none when nobody waits
    // Where this process had no descriptor left for a caller, the port rests until the next tick: the caller
    // goes on waiting, and would keep poll() from doing so.
    void on_tick() { resting_ = false; }
    void close() { socket_ = Descriptor(); }

  private:
    Descriptor socket_;
    bool resting_ = false;
};

// Connections of callers that have not yet shown that they belong to the job. Each has ten seconds for it,
// and where too many wait at a time, those that came first have to go.
class Strangers {
  public:
    static constexpr size_t kFew = 64;  // beside those that belong to the job
    // `most`: at a time.
    explicit Strangers(size_t most) : most_(most) {}

    void add(Channel channel);
    void on_tick(double elapsed_s);
    void add_sockets(std::vector<pollfd>& sockets) const;
    // The next one whose first message has come, and that message; none: no other has sent one. Those that
    // have gone are forgotten.
    std::optional<std::pair<Channel, ControlMessage>> next();
    size_t size() const { return waiting_.size(); }

  private:
    struct Stranger {
        Channel channel;
        double age_s = 0;
    };
    size_t most_;
    std::vector<Stranger> waiting_;  // the first to come first
};

}  // namespace speedrun

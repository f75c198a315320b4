#pragma once
#include <poll.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
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
bool is_loopback(const std::string& ip);

// One end of a connection. Never blocks: what the kernel does not take at once is kept for the next call. An
// error or malformed input ends the connection like its end does, open() says so.
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
    // Lines longer than this end the connection.
    void limit_lines(size_t bytes) { longest_line_ = bytes; }

  private:
    void flush();
    void read();
    std::optional<ControlMessage> parse_line();
    void fail(int error);

    Descriptor socket_;
    std::string unsent_, unread_, error_;
    size_t longest_line_ = size_t{1} << 30;
};

// A port of this machine, chosen by the kernel, on all interfaces.
class Listener {
  public:
    Listener();  // InternalError with the system's reason
    int64_t port() const;
    pollfd interest() const { return {.fd = socket_.get(), .events = POLLIN, .revents = 0}; }
    std::optional<Channel> accept();  // none when nobody waits

  private:
    Descriptor socket_;
};

}  // namespace speedrun

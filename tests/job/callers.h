#pragma once
// Strangers that call at the ports of a job's ranks, and what that costs the ranks.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace speedrun {

// A connection to a port of this machine. What the other end does not take at once is not sent.
class Caller {
  public:
    explicit Caller(uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(port);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        connected_ = ::connect(socket_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
        ::fcntl(socket_, F_SETFL, O_NONBLOCK);
    }
    ~Caller() {
        if (socket_ >= 0) ::close(socket_);
    }
    Caller(Caller&& other) noexcept
        : socket_(std::exchange(other.socket_, -1)), connected_(other.connected_) {}
    Caller& operator=(Caller&&) = delete;

    bool connected() const { return connected_; }
    void send(const std::string& text) const {
        for (size_t at = 0; at < text.size();) {
            const ssize_t sent = ::send(socket_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
            if (sent <= 0) return;
            at += static_cast<size_t>(sent);
        }
    }

  private:
    int socket_;
    bool connected_ = false;
};

struct ListeningSocket {
    std::string address;  // as the kernel writes it: hexadecimal
    uint16_t port = 0;
};

// The TCP sockets by which a process of this machine listens.
inline std::vector<ListeningSocket> listening_sockets(pid_t pid) {
    std::string links;
    std::error_code none;
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/fd", none))
        links += std::filesystem::read_symlink(entry.path(), none).string() + "\n";
    std::vector<ListeningSocket> found;
    for (const char* table : {"/net/tcp", "/net/tcp6"}) {
        std::ifstream in("/proc/" + std::to_string(pid) + table);
        for (std::string line; std::getline(in, line);) {
            std::istringstream words(line);
            const std::vector<std::string> word{std::istream_iterator<std::string>(words), {}};
            if (word.size() < 10 || word[3] != "0A" || links.find("[" + word[9] + "]") == std::string::npos)
                continue;
            const size_t colon = word[1].find(':');
            found.push_back({word[1].substr(0, colon),
                             static_cast<uint16_t>(std::stoul(word[1].substr(colon + 1), nullptr, 16))});
        }
    }
    return found;
}

inline size_t descriptors(pid_t pid) {
    std::error_code none;
    const std::filesystem::directory_iterator at("/proc/" + std::to_string(pid) + "/fd", none), end;
    return static_cast<size_t>(std::distance(at, end));
}

inline int64_t resident_kib(pid_t pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/status");
    for (std::string line; std::getline(in, line);)
        if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6));
    return -1;
}

// Of user and system, so far.
inline double processor_seconds(pid_t pid) {
    std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    std::getline(in, line);
    std::istringstream words(line.substr(line.rfind(')') + 1));
    const std::vector<std::string> word{std::istream_iterator<std::string>(words), {}};
    return (std::stod(word.at(11)) + std::stod(word.at(12))) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

}  // namespace speedrun

#include "job/control_channel.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>

#include "util/error.h"

namespace speedrun {
namespace {

constexpr int kSocketFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

std::string numeric_ip(const sockaddr* address) {
    const socklen_t size = address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    std::array<char, NI_MAXHOST> text{};
    if (::getnameinfo(address, size, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) != 0) return "";
    // An IPv4 peer of a socket that serves both families.
    const std::string ip = text.data();
    constexpr std::string_view mapped = "::ffff:";
    return ip.starts_with(mapped) ? ip.substr(mapped.size()) : ip;
}

void at_once(int socket) {
    const int on = 1;
    ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// A listening socket of `family` on a free port; -1 and errno where that cannot be.
Descriptor listen_on(int family) {
    Descriptor socket(::socket(family, kSocketFlags, 0));
    const int off = 0;
    if (family == AF_INET6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    sockaddr_storage any{};
    any.ss_family = static_cast<sa_family_t>(family);
    const socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    constexpr int backlog = 4096;
    if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&any), size) != 0 ||
        ::listen(socket.get(), backlog) != 0)
        return Descriptor();
    return socket;
}

}  // namespace

Descriptor::~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
}

bool is_loopback(const std::string& ip) {
    return ip.starts_with("127.") || ip == "::1";
}

std::vector<std::string> interface_addresses() {
    ifaddrs* first = nullptr;
    if (::getifaddrs(&first) != 0) return {"127.0.0.1"};
    const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(first, ::freeifaddrs);
    std::vector<std::string> found;
    for (const int family : {AF_INET, AF_INET6})
        for (const ifaddrs* at = first; at; at = at->ifa_next) {
            if (!at->ifa_addr || at->ifa_addr->sa_family != family || !(at->ifa_flags & IFF_UP)) continue;
            const std::string ip = numeric_ip(at->ifa_addr);
            // '%': link-local, means something on its own link only
            if (!ip.empty() && !is_loopback(ip) && ip.find('%') == std::string::npos) found.push_back(ip);
        }
    if (found.empty()) found.emplace_back("127.0.0.1");
    return found;
}

Channel::Channel(Descriptor socket) : socket_(std::move(socket)) {
    at_once(socket_.get());
}

Channel Channel::connect(const Address& address) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    hints.ai_socktype = SOCK_STREAM;
    const std::string port = std::to_string(address.port);
    check(::getaddrinfo(address.ip.c_str(), port.c_str(), &hints, &found) == 0,
          "no numeric address: " + address.ip + " port " + port);
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, ::freeaddrinfo);
    Channel channel(Descriptor(::socket(found->ai_family, kSocketFlags, 0)));
    if (!channel.open() ||
        (::connect(channel.socket_.get(), found->ai_addr, found->ai_addrlen) != 0 && errno != EINPROGRESS))
        channel.fail(errno);
    return channel;
}

void Channel::send(const ControlMessage& message) {
    if (!open()) return;
    // A message may quote a file's name, which need not be UTF-8.
    unsent_ += message.dump(-1, ' ', false, ControlMessage::error_handler_t::replace) + "\n";
    flush();
}

void Channel::flush() {
    while (behind()) {
        const ssize_t sent = ::send(socket_.get(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
        if (sent > 0) {
            unsent_.erase(0, static_cast<size_t>(sent));
        } else if (errno == EAGAIN) {
            return;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            unsent_.clear();  // what the other end said before is still to be read
            return;
        } else if (errno != EINTR) {
            return fail(errno);
        }
    }
}

std::optional<ControlMessage> Channel::next() {
    flush();
    if (unread_.find('\n') == std::string::npos) read();
    return parse_line();
}

std::optional<ControlMessage> Channel::parse_line() {
    const size_t end = unread_.find('\n');
    if (end == std::string::npos) return std::nullopt;
    auto message =
        ControlMessage::parse(unread_.begin(), unread_.begin() + static_cast<ptrdiff_t>(end), nullptr, false);
    unread_.erase(0, end + 1);
    if (message.is_object()) return message;
    unread_.clear();
    fail(EBADMSG);
    return std::nullopt;
}

void Channel::read() {
    std::array<char, 1 << 16> buffer;
    while (open()) {
        const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
        if (got > 0) {
            unread_.append(buffer.data(), static_cast<size_t>(got));
            if (unread_.size() <= longest_line_) continue;
            unread_.clear();
            fail(EMSGSIZE);
        } else if (got == 0) {
            close();
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR) {
            fail(errno);
        }
    }
}

void Channel::fail(int error) {
    error_ = std::strerror(error);
    close();
}

void Channel::close() {
    socket_ = Descriptor();
    unsent_.clear();
}

pollfd Channel::interest() const {
    const int events = POLLIN | (unsent_.empty() ? 0 : POLLOUT);
    return {.fd = socket_.get(), .events = static_cast<short>(events), .revents = 0};
}

std::string Channel::peer_ip() const {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    auto* const address = reinterpret_cast<sockaddr*>(&peer);
    return ::getpeername(socket_.get(), address, &size) == 0 ? numeric_ip(address) : "";
}

Listener::Listener() : socket_(listen_on(AF_INET6)) {
    if (socket_.get() < 0) socket_ = listen_on(AF_INET);
    check(socket_.get() >= 0, std::string("no TCP port to listen on: ") + std::strerror(errno));
}

int64_t Listener::port() const {
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    check(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&bound), &size) == 0, "getsockname");
    return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

std::optional<Channel> Listener::accept() {
    Descriptor socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.get() < 0) return std::nullopt;
    return Channel(std::move(socket));
}

}  // namespace speedrun

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

// The address of `family` to listen at: the loopback's, or any.
sockaddr_storage own_address(int family, Reach reach) {
    sockaddr_storage own{};
    own.ss_family = static_cast<sa_family_t>(family);
    if (reach == Reach::network) return own;
    if (family == AF_INET6)
        reinterpret_cast<sockaddr_in6&>(own).sin6_addr = in6addr_loopback;
    else
        reinterpret_cast<sockaddr_in&>(own).sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return own;
}

// A listening socket of `family` on a free port; -1 and errno where that cannot be.
Descriptor listen_on(int family, Reach reach) {
    Descriptor socket(::socket(family, kSocketFlags, 0));
    const int off = 0;
    if (family == AF_INET6) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    const sockaddr_storage own = own_address(family, reach);
    const socklen_t size = family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
    constexpr int backlog = 4096;
    if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&own), size) != 0 ||
        ::listen(socket.get(), backlog) != 0)
        return Descriptor();
    return socket;
}

// Nothing where the text is no JSON object, or nests deeper than messages do.
std::optional<ControlMessage> parse_message(std::string_view text) {
    constexpr int kDeepest = 16;
    bool too_deep = false;
    const auto look = [&](int depth, ControlMessage::parse_event_t, const ControlMessage&) {
        too_deep = too_deep || depth > kDeepest;
        return !too_deep;
    };
    auto message = ControlMessage::parse(text.begin(), text.end(), look, /*allow_exceptions=*/false);
    if (too_deep || !message.is_object()) return std::nullopt;
    return message;
}

}  // namespace

Descriptor::~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
}

std::vector<std::string> loopback_addresses() {
    return {"127.0.0.1", "::1"};
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
    auto message = parse_message(std::string_view(unread_).substr(0, end));
    unread_.erase(0, end + 1);
    if (message) return message;
    unread_.clear();
    fail(EBADMSG);
    return std::nullopt;
}

void Channel::read() {
    constexpr int kPiecesAtATime = 16;
    std::array<char, 1 << 16> buffer;
    for (int pieces = 0; open() && pieces < kPiecesAtATime;) {
        const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
        if (got > 0) {
            ++pieces;
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

Listener::Listener(Reach reach) {
    const bool here = reach == Reach::this_machine;
    for (const int family : here ? std::array{AF_INET, AF_INET6} : std::array{AF_INET6, AF_INET})
        if (socket_.get() < 0) socket_ = listen_on(family, reach);
    check(socket_.get() >= 0, std::string("no TCP port to listen on: ") + std::strerror(errno));
}

pollfd Listener::interest() const {
    return {.fd = resting_ ? -1 : socket_.get(), .events = POLLIN, .revents = 0};
}

int64_t Listener::port() const {
    sockaddr_storage bound{};
    socklen_t size = sizeof bound;
    check(::getsockname(socket_.get(), reinterpret_cast<sockaddr*>(&bound), &size) == 0, "getsockname");
    return ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(bound).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(bound).sin_port);
}

std::optional<Channel> Listener::accept() {
    if (resting_ || socket_.get() < 0) return std::nullopt;
    Descriptor socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.get() >= 0) return Channel(std::move(socket));
    resting_ = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    return std::nullopt;
}

void Strangers::add(Channel channel) {
    if (waiting_.size() >= most_) waiting_.erase(waiting_.begin());
    waiting_.push_back({std::move(channel)});
}

void Strangers::on_tick(double elapsed_s) {
    constexpr double patience_s = 10;
    for (Stranger& stranger : waiting_) stranger.age_s += elapsed_s;
    std::erase_if(waiting_, [](const Stranger& stranger) { return stranger.age_s > patience_s; });
}

void Strangers::add_sockets(std::vector<pollfd>& sockets) const {
    for (const Stranger& stranger : waiting_) sockets.push_back(stranger.channel.interest());
}

std::optional<std::pair<Channel, ControlMessage>> Strangers::next() {
    for (size_t i = 0; i < waiting_.size(); ++i) {
        auto message = waiting_[i].channel.next();
        if (!message) continue;
        std::pair<Channel, ControlMessage> found{std::move(waiting_[i].channel), *std::move(message)};
        waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
        return found;
    }
    std::erase_if(waiting_, [](const Stranger& stranger) { return !stranger.channel.open(); });
    return std::nullopt;
}

std::string text_of(const ControlMessage& from, const char* key) {
    const auto found = from.find(key);
    return found != from.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace speedrun

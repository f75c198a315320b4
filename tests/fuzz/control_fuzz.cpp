// Any bytes that a stranger sends to a rank's port: they become messages or end the connection, with bounded
// memory, and what is looked at of a message is text.
#include <sys/socket.h>

#include <algorithm>
#include <string>

#include "fuzz_files.h"
#include "job/control_channel.h"

namespace speedrun {
namespace {

// Until it takes no more.
void send_all(int socket, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent <= 0) return;
        bytes.remove_prefix(static_cast<size_t>(sent));
    }
}

void hear(std::string_view bytes) {
    int ends[2] = {-1, -1};
    check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
    const Descriptor stranger(ends[0]);
    Strangers strangers(2);
    strangers.add(Channel(Descriptor(ends[1])));
    send_all(stranger.get(), bytes);
    ::shutdown(stranger.get(), SHUT_WR);
    while (auto found = strangers.next()) {
        auto& [channel, message] = *found;
        check(message.is_object(), "a message is an object");
        check(text_of(message, "kind").size() <= bytes.size(), "a text of the message");
        channel.send(message);
        while (const auto more = channel.next()) check(more->is_object(), "a message is an object");
    }
    strangers.on_tick(11);
    check(strangers.size() == 0, "nobody is waited for longer than ten seconds");
}

}  // namespace
}  // namespace speedrun

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* bytes, size_t size) {
    speedrun::hear(speedrun::as_text(bytes, size));
    return 0;
}

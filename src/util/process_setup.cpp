#include "util/process_setup.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <initializer_list>
#include <latch>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "util/error.h"

namespace speedrun {

void open_standard_files() {
    for (const int standard : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(standard, F_GETFD) < 0)
            (void)::open("/dev/null", standard == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

void report_full_files() {
    ::signal(SIGXFSZ, SIG_IGN);
}

void outlive_readers() {
    ::signal(SIGPIPE, SIG_IGN);
}

void require_room_for_threads(int64_t count) {
    std::latch tried(1);
    std::vector<std::jthread> threads;
    std::string refused;
    try {
        for (int64_t i = 0; i < count; ++i) threads.emplace_back([&tried] { tried.wait(); });
    } catch (const std::system_error& error) {
        refused = error.code().message();
    }
    tried.count_down();
    if (!refused.empty())
        throw UserError("too little room for threads: of " + std::to_string(count) +
                        " more the system starts " + std::to_string(threads.size()) + ": " + refused);
}

}  // namespace speedrun

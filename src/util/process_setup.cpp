#include "util/process_setup.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <initializer_list>

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

}  // namespace speedrun

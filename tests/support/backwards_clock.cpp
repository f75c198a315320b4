// For LD_PRELOAD: a wall clock that is set back an hour each time somebody looks at it. Clocks that only go
// forward are left alone.
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

namespace {

time_t seconds_too_late() {
    static std::atomic<time_t> looks{0};
    return 3600 * (looks++ % 100'000);
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
    const auto result = static_cast<int>(syscall(SYS_clock_gettime, clock, now));
    if (result == 0 && clock == CLOCK_REALTIME) now->tv_sec -= seconds_too_late();
    return result;
}

extern "C" int gettimeofday(timeval* now, void*) noexcept {
    timespec time{};
    clock_gettime(CLOCK_REALTIME, &time);
    *now = {time.tv_sec, time.tv_nsec / 1000};
    return 0;
}

extern "C" time_t time(time_t* where) noexcept {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    if (where != nullptr) *where = now.tv_sec;
    return now.tv_sec;
}

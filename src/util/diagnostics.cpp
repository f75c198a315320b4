#include "util/diagnostics.h"

#include <spdlog/cfg/env.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "util/utf8.h"

namespace speedrun {
namespace {

spdlog::logger& logger() {
    static const std::shared_ptr<spdlog::logger> made = [] {
        spdlog::cfg::load_env_levels();
        auto logger = spdlog::stderr_logger_mt("speedrun");
        logger->set_pattern("[%T.%e] [%l] %v");
        return logger;
    }();
    return *made;
}

spdlog::level::level_enum level_of(Severity severity) {
    switch (severity) {
        case Severity::debug:
            return spdlog::level::debug;
        case Severity::info:
            return spdlog::level::info;
        case Severity::warning:
            return spdlog::level::warn;
    }
    return spdlog::level::off;
}

}  // namespace

void diagnose(Severity severity, const std::string& text) noexcept try {
    logger().log(level_of(severity), spdlog::string_view_t(terminal_text(text)));
} catch (const std::exception&) {  // no memory for it
}

void name_rank_in_diagnostics(int64_t rank) {
    logger().set_pattern(fmt::format("[%T.%e] [rank {}] [%l] %v", rank));
}

}  // namespace speedrun

#include <span>

#include "app/cli.h"
#include "train/interrupt.h"
#include "util/process_setup.h"

int main(int argc, char** argv) {
    speedrun::open_standard_files();
    speedrun::report_full_files();
    const int exit_code =
        speedrun::run_program(std::span(argv + (argc > 0), static_cast<size_t>(argc > 0 ? argc - 1 : 0)));
    speedrun::forget_late_signals();
    return exit_code;
}

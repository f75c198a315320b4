#include <span>

#include "app/cli.h"

int main(int argc, char** argv) {
    return speedrun::run_program(std::span(argv + (argc > 0), static_cast<size_t>(argc > 0 ? argc - 1 : 0)));
}

#pragma once
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "record/log/log.h"

namespace speedrun {

inline const std::string kLogRule(100, '=');

// The parts of a log in the track's shape, with made-up numbers.
inline std::string source_text(const std::string& name = "a") {
    return "import torch  # " + name +
           ", \xC3\xA9\nstep: int = 0\nprint0(f\"step:{step}/{steps} val_loss:{loss}\")\n";
}

inline std::string header_text(int gpus = 8, const std::string& torch = "2.10.0+cu128",
                               const std::string& date = "Fri Jul 17 13:28:52 2026") {
    std::string text =
        "Running Python 3.12.3 (main, Jan 22 2026, 20:57:42) [GCC 13.3.0]\nRunning PyTorch " + torch +
        " compiled for CUDA 12.8\nRunning Triton version 3.6.0\n" + date +
        "       \n| NVIDIA-SMI 580.159.04     Driver Version: 580.159.04     CUDA Version: 13.0     |\n"
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A |\n";
    for (int i = 0; i < gpus; ++i)
        text +=
            "|   " + std::to_string(i) +
            "  NVIDIA H100 80GB HBM3          On  |   00000000:8D:00.0 Off |   0 |\n" +
            "| N/A   54C    P0            147W /  700W |    1521MiB /  81559MiB |      0%      Default |\n";
    return text + "|    0   N/A  N/A         1039695      C   .../bin/python       1512MiB |\n";
}

// Steps of `step_ms` with a validation every `every` steps and after the last.
inline std::string step_lines(int64_t steps, double final_loss, double step_ms = 50, int64_t every = 10) {
    std::string text = validation_line(0, steps, 10.8258, 0) + "\n";
    for (int64_t step = 1; step <= steps; ++step) {
        const double time = step_ms * static_cast<double>(step);
        text += step_line(step, steps, time) + "\n";
        if (step == steps) {
            text += validation_line(step, steps, final_loss, time) + "\n";
        } else if (step % every == 0) {
            text += validation_line(step, steps, final_loss + 1, time) + "\n";
        }
    }
    return text;
}

inline std::string log_text(int64_t steps, double final_loss, double step_ms = 50,
                            const std::string& source = "a", int gpus = 8) {
    return source_text(source) + kLogRule + "\n" + header_text(gpus) + kLogRule + "\n" +
           step_lines(steps, final_loss, step_ms) + "peak memory allocated: 30220 MiB reserved: 38672 MiB\n";
}

inline void write_file(const std::filesystem::path& path, std::string_view text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

}  // namespace speedrun

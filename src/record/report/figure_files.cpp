#include "record/report/figure_files.h"

#include "util/atomic_file.h"
#include "util/child_process.h"
#include "util/error.h"
#include "util/files.h"

namespace speedrun {

namespace fs = std::filesystem;

std::vector<fs::path> write_svgs(const NamedFigures& figures, const fs::path& folder) {
    files::make_folders(folder);
    std::vector<fs::path> written;
    for (const auto& [name, svg] : figures) {
        written.push_back(folder / (name + ".svg"));
        write_atomically(written.back(), svg.alone());
    }
    return written;
}

std::vector<fs::path> write_pngs(const NamedFigures& figures, const fs::path& folder) {
    files::make_folders(folder);
    std::vector<fs::path> written;
    for (const auto& [name, svg] : figures) {
        const fs::path source = folder / ("." + name + ".png.svg");
        written.push_back(folder / (name + ".png"));
        write_atomically(source, svg.alone());
        const ChildEnd end =
            run_child({"rsvg-convert", "--zoom=2", "-o", written.back().string(), source.string()});
        files::remove(source);
        if (end.exit_code != 0)
            throw UserError(written.back().string() + ": rsvg-convert ended with exit code " +
                            std::to_string(end.exit_code));
    }
    return written;
}

void require_png() {
    if (!program_exists("rsvg-convert"))
        throw UserError(
            "--png needs the program rsvg-convert (Debian package librsvg2-bin); SVG needs nothing");
}

}  // namespace speedrun

#include "record/grid/grid.h"

#include <iostream>

#include "app/record/attempt.h"
#include "record/log/run_json.h"
#include "util/atomic_file.h"
#include "util/error.h"
#include "util/exit_codes.h"
#include "util/files.h"
#include "util/json_document.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

// What is stated before the first run, and cannot change after.
Json stated_grid(const cxxopts::ParseResult& args) {
    Json axes = Json::array();
    for (const std::string& axis : args["grid"].as<std::vector<std::string>>()) axes.push_back(axis);
    return {{"config", args["config"].as<std::string>()}, {"grid", axes}, {"runs", plan_of(args, {}).runs}};
}

void state_grid(const Json& wanted, const fs::path& file) {
    if (!files::exists(file)) return write_atomically(file, dump_json(wanted) + "\n");
    const Json stated = read_json_file(file);
    if (stated != wanted)
        throw UserError(file.string() +
                        ": another grid was stated before the first run: " + dump_json(stated) +
                        "; wanted now: " + dump_json(wanted) + "; another --out begins anew");
}

bool is_unfinished_grid(const fs::path& folder) {
    return files::exists(folder / "grid.json") && !files::exists(folder / "README.md");
}

std::string grid_readme(const cxxopts::ParseResult& args, const std::vector<GridRow>& rows) {
    return "# Grid of " + markdown_text(name_of(args)) + "\n\n" + markdown_table(grid_table(rows)) +
           "\nEvery cell has the same seeds. Differences are from the first cell, which is the config as it "
           "is, seed by "
           "seed; intervals and p (two-sided) are by Student's t, and p by Holm counts how many cells were "
           "compared. Runs that diverged are left out of means and differences, and counted.\n";
}

}  // namespace

int make_grid(const cxxopts::ParseResult& args) {
    for (const char* option : {"baseline", "stop-rule"})
        if (args.count(option) > 0)
            throw UserError(
                std::string("record attempt: --grid compares with the config as it is, and makes all "
                            "runs; --") +
                option + " has no place there");
    std::vector<GridAxis> axes;
    for (const std::string& text : args["grid"].as<std::vector<std::string>>())
        axes.push_back(parse_grid_axis(text));
    const std::vector<GridCell> cells = grid_cells(axes);
    std::vector<AttemptPlan> plans;
    for (const GridCell& cell : cells) {
        plans.push_back(plan_of(args, cell.overrides));
        check_configs(plans.back());  // every cell's mistakes are found before the first run
    }
    const AttemptFolders folders = folders_of(args, is_unfinished_grid);
    files::make_folders(folders.record);
    state_grid(stated_grid(args), folders.record / "grid.json");
    std::vector<GridLosses> losses;
    for (size_t i = 0; i < cells.size(); ++i) {
        const AttemptFolders own{folders.record / cells[i].name, folders.runs / cells[i].name};
        const std::optional<Attempt> attempt = complete(plans[i], own, args);
        if (!attempt) return kInterrupted;
        if (const auto repeats = repeated_runs(read_attempt_logs(*attempt, own.record)); !repeats.empty())
            throw UserError(own.record.string() + ": runs of a cell repeat others: " + repeats);
        losses.push_back({cells[i].name, losses_so_far(*attempt, false)});
    }
    const std::vector<GridRow> rows = grid_rows(losses);
    write_atomically(folders.record / "README.md", grid_readme(args, rows));
    std::cout << (args.count("json") > 0 ? dump_json(grid_json(rows)) + "\n"
                                         : "\n" + plain_table(grid_table(rows)));
    return 0;
}

}  // namespace speedrun

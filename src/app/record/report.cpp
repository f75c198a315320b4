#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/build_info.h"
#include "app/record/options.h"
#include "app/verbs.h"
#include "record/judge/check_report.h"
#include "record/log/run_json.h"
#include "record/report/figure_files.h"
#include "record/report/report.h"
#include "util/atomic_file.h"
#include "util/diagnostics.h"
#include "util/exit_codes.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

cxxopts::Options report_options() {
    cxxopts::Options options(
        "speedrun record report",
        "Shows the runs of a record, or of a comparison with a baseline, as one HTML page "
        "that needs no other file:\n"
        "loss over steps and time, step times and stalls, final losses with the target and "
        "confidence intervals,\n"
        "what differs in what was run, tables.\n"
        "Exit code: 0, or 2 where there is nothing to report or something could not be read.\n");
    options.positional_help("FOLDERS...");
    add_target_options(options);
    options.add_options()                                                                                  //
        ("o,out", "the page; replaced if it is there",                                                     //
         cxxopts::value<std::string>()->default_value("report.html"))                                      //
        ("baseline", "folder or log to compare with", cxxopts::value<std::string>())                       //
        ("title", "of the page", cxxopts::value<std::string>())                                            //
        ("svg", "also write each picture as an SVG file into this folder", cxxopts::value<std::string>())  //
        ("png",
         "also write each picture as a PNG file into this folder; needs rsvg-convert (librsvg2-bin)",  //
         cxxopts::value<std::string>())                                                                //
        ("json", "print what was written as JSON")                                                     //
        ("paths", "folders or logs", cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"paths"});
    return options;
}

Collection collect(const std::vector<fs::path>& paths) {
    CollectOptions options;
    options.parse = {.keep_clock = true, .keep_train_losses = true};
    return collect_runs(paths, options);
}

}  // namespace

int run_record_report(int argc, char** argv) {
    cxxopts::Options options = report_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    if (args.count("paths") == 0) throw UserError("record report: which folders?" + help_hint(options));
    std::vector<fs::path> paths;
    for (const auto& path : args["paths"].as<std::vector<std::string>>()) paths.emplace_back(path);
    if (args.count("png") > 0) require_png();
    const Collection runs = collect(paths);
    std::optional<Collection> baseline;
    if (args.count("baseline") > 0) baseline = collect({args["baseline"].as<std::string>()});
    for (const auto& warning : collection_warnings(runs)) warn("{}", warning);
    if (baseline)
        for (const auto& warning : collection_warnings(*baseline)) warn("{}", warning);
    const RunReport report =
        make_report(runs, baseline,
                    {.title = value_or_empty<std::string>(args, "title"),
                     .made_by = "Made by speedrun " + build_version() + ", commit " + build_commit(),
                     .target = timed_target_of(args)});
    const fs::path page = args["out"].as<std::string>();
    write_atomically(page, report_html(report));
    std::vector<std::string> written{page.string()};
    const auto add = [&](const std::vector<fs::path>& files) {
        written.insert(written.end(), files.begin(), files.end());
    };
    if (args.count("svg") > 0) add(write_svgs(report_figures(report), args["svg"].as<std::string>()));
    if (args.count("png") > 0) add(write_pngs(report_figures(report), args["png"].as<std::string>()));
    if (args.count("json") > 0) {
        std::cout << dump_json({{"written", written}}) << "\n";
    } else {
        for (const auto& path : written) std::cout << path << "\n";
    }
    const bool all_read = runs.problems.empty() && (!baseline || baseline->problems.empty());
    return all_read ? 0 : kUserError;
}

}  // namespace speedrun

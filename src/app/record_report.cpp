#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/build_info.h"
#include "app/record_options.h"
#include "app/record_verbs.h"
#include "record/check_report.h"
#include "record/report.h"
#include "record/run_json.h"
#include "util/atomic_file.h"
#include "util/child_process.h"

namespace speedrun {
namespace {

namespace fs = std::filesystem;

cxxopts::Options make_options() {
    cxxopts::Options options(
        "speedrun record report",
        "Shows the runs of a record, or of a comparison with a baseline, as one HTML page "
        "that needs no other file:\n"
        "loss over steps and time, step times and stalls, final losses with the target and "
        "confidence intervals,\n"
        "what differs in what was run, tables.\n"
        "Exit code: 0, or 2 where there is nothing to report.\n");
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
        ("paths", "folders or logs", cxxopts::value<std::vector<std::string>>())                       //
        ("help", "this text");
    options.parse_positional({"paths"});
    return options;
}

Collection collect(const std::vector<fs::path>& paths) {
    CollectOptions options;
    options.parse = {.keep_clock = true, .keep_validations = true, .keep_train_losses = true};
    return collect_runs(paths, options);
}

void write(const fs::path& path, const std::string& text, std::vector<std::string>& written) {
    AtomicFile file(path);
    file.write(text);
    file.commit();
    written.push_back(path.string());
}

void make_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw UserError(folder.string() + ": cannot create: " + error.message());
}

void write_svgs(const Report& report, const fs::path& folder, std::vector<std::string>& written) {
    make_folder(folder);
    for (const auto& [name, svg] : report_figures(report))
        write(folder / (name + ".svg"), svg.alone(), written);
}

void require_rsvg() {
    if (!program_exists("rsvg-convert"))
        throw UserError(
            "--png needs the program rsvg-convert (Debian package librsvg2-bin); --svg needs nothing");
}

// Twice the SVG's size, for screens of today.
void write_pngs(const Report& report, const fs::path& folder, std::vector<std::string>& written) {
    make_folder(folder);
    for (const auto& [name, svg] : report_figures(report)) {
        const fs::path source = folder / (name + ".svg"), target = folder / (name + ".png");
        std::vector<std::string> temporary;
        const bool keep = fs::exists(source);
        if (!keep) write(source, svg.alone(), temporary);
        const ChildEnd end = run_child({"rsvg-convert", "--zoom=2", "-o", target.string(), source.string()});
        if (!keep) fs::remove(source);
        if (end.exit_code != 0)
            throw UserError(target.string() + ": rsvg-convert ended with exit code " +
                            std::to_string(end.exit_code));
        written.push_back(target.string());
    }
}

}  // namespace

int run_record_report(int argc, char** argv) {
    cxxopts::Options options = make_options();
    const auto args = parse_arguments(options, argc, argv);
    if (args.count("help") > 0) {
        std::cout << options.help();
        return 0;
    }
    if (args.count("paths") == 0) throw UserError("record report: which folders?\n" + options.help());
    std::vector<fs::path> paths;
    for (const auto& path : args["paths"].as<std::vector<std::string>>()) paths.emplace_back(path);
    if (args.count("png") > 0) require_rsvg();
    const Collection runs = collect(paths);
    std::optional<Collection> baseline;
    if (args.count("baseline") > 0) baseline = collect({args["baseline"].as<std::string>()});
    for (const auto& warning : collection_warnings(runs)) std::cerr << warning << "\n";
    const Report report =
        make_report(runs, baseline,
                    {.title = value_or_empty<std::string>(args, "title"),
                     .made_by = "Made by speedrun " + build_version() + ", commit " + build_commit(),
                     .target = target_of(args)});
    std::vector<std::string> written;
    write(args["out"].as<std::string>(), report_html(report), written);
    if (args.count("svg") > 0) write_svgs(report, args["svg"].as<std::string>(), written);
    if (args.count("png") > 0) write_pngs(report, args["png"].as<std::string>(), written);
    if (args.count("json") > 0) {
        std::cout << dump_json({{"written", written}}) << "\n";
    } else {
        for (const auto& path : written) std::cout << path << "\n";
    }
    return 0;
}

}  // namespace speedrun

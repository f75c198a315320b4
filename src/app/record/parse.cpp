#include <iostream>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "app/verbs.h"
#include "record/log/parse_report.h"
#include "record/log/run_json.h"
#include "util/diagnostics.h"
#include "util/exit_codes.h"
#include "util/utf8.h"

namespace speedrun {
namespace {

cxxopts::Options parse_options() {
    cxxopts::Options options("speedrun record parse",
                             "Says what logs hold: their runs, validations, stalls, hardware.\n"
                             "Exit code: 0, or 2 where a file cannot be read or none holds a run.\n");
    options.positional_help("FILES...");
    options.add_options()                          //
        ("json", "print a JSON list of the runs")  //
        ("files", "logs", cxxopts::value<std::vector<std::string>>());
    options.parse_positional({"files"});
    return options;
}

}  // namespace

int run_record_parse(int argc, char** argv) {
    cxxopts::Options options = parse_options();
    const auto parsed = parse_verb(options, argc, argv, {});
    if (!parsed) return 0;
    const cxxopts::ParseResult& args = *parsed;
    if (args.count("files") == 0) throw UserError("record parse: which logs?" + help_hint(options));
    nlohmann::ordered_json all = nlohmann::ordered_json::array();
    bool any = false, all_read = true;
    for (const auto& file : args["files"].as<std::vector<std::string>>()) {
        RunLog log;
        try {
            log = read_run_log(file);
        } catch (const UserError& error) {
            warn("{}", error.what());
            all_read = false;
            continue;
        }
        for (const auto& remark : log_remarks(log)) warn("{}", remark);
        any = any || !log.runs.empty();
        for (size_t i = 0; i < log.runs.size(); ++i) {
            if (args.count("json") > 0) {
                all.push_back(run_json(log, i));
            } else {
                std::cout << run_text(log, i);
            }
        }
    }
    if (args.count("json") > 0) std::cout << dump_json(all) << "\n";
    return any && all_read ? 0 : kUserError;
}

}  // namespace speedrun

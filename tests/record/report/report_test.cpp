#include "record/report/report.h"

#include <cmath>

#include "record/log_builder.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace speedrun {
namespace {

// Whether every element is closed in its turn and every attribute quoted: what makes a picture XML.
std::string xml_fault(const std::string& text) {
    std::vector<std::string> open;
    for (size_t at = text.find('<'); at != std::string::npos; at = text.find('<', at + 1)) {
        const size_t end = text.find('>', at);
        if (end == std::string::npos) return "a tag does not end";
        const std::string tag = text.substr(at + 1, end - at - 1);
        if (tag.empty() || tag.find('<') != std::string::npos) return "a stray <: " + tag;
        if (std::ranges::count(tag, '"') % 2 != 0) return "an odd quote: " + tag;
        const std::string name =
            tag.substr(tag[0] == '/' ? 1 : 0, tag.find_first_of(" /", 1) - (tag[0] == '/' ? 1 : 0));
        if (tag[0] == '/') {
            if (open.empty() || open.back() != tag.substr(1)) return "closes what is not open: " + tag;
            open.pop_back();
        } else if (tag.back() != '/') {
            open.push_back(name);
        }
    }
    return open.empty() ? "" : "not closed: " + open.back();
}

Collection collect(const std::filesystem::path& path) {
    const std::filesystem::path paths[] = {path};
    CollectOptions options;
    options.parse.keep_clock = options.parse.keep_train_losses = true;
    return collect_runs(paths, options);
}

// 40 steps of 50 ms; the 12th takes 950.
std::string log_with_stall() {
    std::string text = source_text() + kLogRule + "\n" + header_text() + kLogRule + "\n";
    for (int step = 1; step <= 40; ++step)
        text += step_line(step, 40, 50 * step + (step >= 12 ? 900 : 0)) + "\n";
    return text + validation_line(40, 40, 3.27, 2900) + "\n";
}

void write_group(const std::filesystem::path& folder, double loss, const std::string& source = "a") {
    for (int i = 0; i < 3; ++i)
        write_file(folder / ("run" + std::to_string(i) + ".txt"), log_text(40, loss + 0.001 * i, 50, source));
}

std::vector<std::string> names(const RunReport& report) {
    std::vector<std::string> names;
    for (const auto& [name, svg] : report_figures(report)) names.push_back(name);
    return names;
}

TEST(Report, ShowsARecord) {
    const TemporaryFolder folder;
    write_group(folder / "good", 3.27);
    const RunReport report =
        make_report(collect(folder / "good"), std::nullopt, {.title = "A <b> & c", .made_by = "test"});
    EXPECT_EQ(names(report), (std::vector<std::string>{"final_losses", "loss_over_steps", "loss_over_time",
                                                       "final_times", "step_times"}));
    const std::string html = report_html(report);
    for (const char* part : {"<title>A &lt;b&gt; &amp; c</title>", "Below the target", "run0.txt",
                             "8 x NVIDIA H100", "prefers-color-scheme:dark", "@media print", "target 3.28"})
        EXPECT_NE(html.find(part), std::string::npos) << part;
    for (const char* part : {"https://", "<script", "<link", "<img", "url(", "src="})
        EXPECT_EQ(html.find(part), std::string::npos) << part << ": the page needs nothing else";
    for (const auto& [name, svg] : report_figures(report)) {
        EXPECT_EQ(xml_fault(svg.alone()), "") << name;
        EXPECT_EQ(svg.alone().find("nan"), std::string::npos) << name;
    }
}

TEST(Report, ShowsAComparisonWithWhatDiffers) {
    const TemporaryFolder folder;
    write_group(folder / "old", 3.275, "a");
    write_group(folder / "new", 3.27, "b");
    const RunReport report = make_report(collect(folder / "new"), collect(folder / "old"), {});
    ASSERT_TRUE(report.comparison.has_value());
    EXPECT_EQ(report.groups[0].name, "old");
    EXPECT_EQ(report.title, "new");
    const std::string html = report_html(report);
    for (const char* part : {"Comparison", "What differs in what was run",
                             "class=\"removed\">- import torch  # a", "class=\"added\">+ import torch  # b"})
        EXPECT_NE(html.find(part), std::string::npos) << part;
}

TEST(Report, MarksStallsAndHintsAtThem) {
    const TemporaryFolder folder;
    write_group(folder / "a", 3.27);
    write_file(folder / "a" / "slow.txt", log_with_stall());
    const RunReport report = make_report(collect(folder / "a"), std::nullopt, {});
    const std::string svg = step_time_figure(report.groups).alone();
    EXPECT_NE(svg.find("step 12: 950 ms, usually 50"), std::string::npos);
    EXPECT_NE(svg.find("1 stall, 900 ms"), std::string::npos);
    EXPECT_NE(svg.find("no stall"), std::string::npos);
}

TEST(Report, LeavesOutWhatTheLogsDoNotHold) {
    const TemporaryFolder folder;
    write_file(folder / "a" / "log.txt", "s:0 tel:10.8\ns:125 tel:4.1\ns:250 tel:3.3\n");
    const RunReport report = make_report(collect(folder / "a"), std::nullopt, {});
    EXPECT_EQ(names(report), (std::vector<std::string>{"final_losses", "loss_over_steps"}));
    for (const auto& [name, svg] : report_figures(report)) EXPECT_EQ(xml_fault(svg.alone()), "") << name;
}

TEST(Report, OddLossesBreakNoPicture) {
    const TemporaryFolder folder;
    for (int i = 0; i < 2; ++i)
        write_file(folder / "a" / (std::to_string(i) + "<&\".txt"), log_text(3, i == 0 ? 3.3 : std::nan("")));
    const RunReport report = make_report(collect(folder / "a"), std::nullopt, {});
    const std::string html = report_html(report);
    EXPECT_EQ(xml_fault(html.substr(html.find("<main>"), html.find("</body>") - html.find("<main>"))), "");
    for (const auto& [name, svg] : report_figures(report)) EXPECT_EQ(xml_fault(svg.alone()), "") << name;
}

TEST(Report, MistakesAreUserErrors) {
    const TemporaryFolder folder;
    write_file(folder / "empty" / "a.txt", "hello\n");
    expect_user_error([&] { make_report(collect(folder / "empty"), std::nullopt, {}); }, {"no complete run"});
    for (int i = 0; i < 11; ++i)
        write_file(folder / "many" / (std::to_string(i) + ".txt"), log_text(10 + i, 3.27));
    expect_user_error([&] { make_report(collect(folder / "many"), std::nullopt, {}); },
                      {"11 kinds", "at most 10"});
    write_group(folder / "good", 3.27);
    expect_user_error([&] { make_report(collect(folder / "good"), collect(folder / "many"), {}); },
                      {"baseline"});
}

}  // namespace
}  // namespace speedrun

#include "record/report/html_page.h"

#include "record/report/svg.h"

namespace speedrun {
namespace {

constexpr const char* kPageCss = R"(
:root{color-scheme:light dark;--ground:#fff;--text:#2b2f36;--muted:#5c6470;--rule:#d8dce2;--soft:#f4f5f7;
--good:#00694e;--bad:#a3122a;--added:#e3f5ec;--removed:#fdeaec}
@media (prefers-color-scheme:dark){:root{--ground:#15181d;--text:#e3e6eb;--muted:#9aa3b0;--rule:#3a414c;--soft:#1e232a;
--good:#4cc9a0;--bad:#ff8593;--added:#12362b;--removed:#43202a}}
@page{margin:15mm}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--text);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:940px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:1.7em;line-height:1.2;margin:.2em 0 .6em}h2{font-size:1.2em;margin:2em 0 .5em}
p{margin:.4em 0}.muted,figcaption{color:var(--muted)}
.verdict{border-left:4px solid var(--bad);background:var(--soft);padding:8px 14px;margin:10px 0}
.verdict.yes{border-color:var(--good)}.verdict strong{color:var(--bad)}.verdict.yes strong{color:var(--good)}
figure{margin:12px 0 20px}figcaption{font-size:.9em;margin-top:4px}
.figure{width:100%;height:auto;display:block}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9em;font-variant-numeric:tabular-nums;margin:8px 0}
th,td{padding:3px 10px;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
th{font-weight:600}
td.long{white-space:normal;overflow-wrap:anywhere;text-align:left}
pre{background:var(--soft);padding:10px 12px;overflow-x:auto;font:12px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;
margin:8px 0}pre span{display:block;min-height:1.45em}
.added{background:var(--added)}.removed{background:var(--removed)}.gap{color:var(--muted)}
footer{margin-top:40px;color:var(--muted);font-size:.85em}
@media print{:root{color-scheme:light;--ground:#fff;--text:#000;--muted:#444;--rule:#bbb;--soft:#fff;--good:#00694e;
--bad:#a3122a;--added:#e3f5ec;--removed:#fdeaec}body{font-size:10pt}main{max-width:none;padding:0}
figure,tr,.verdict{break-inside:avoid}h2,tr:first-child{break-after:avoid}
.wide,pre{overflow:visible}pre{white-space:pre-wrap;overflow-wrap:anywhere}table{font-size:8pt}th,td{padding:2px 6px}
h2{margin-top:1.2em}}
)";

std::string style() {
    return std::string("<style>") + kPageCss + figure_css(false) + "@media (prefers-color-scheme:dark){" +
           figure_css(true) + "}\n@media print{" + figure_css(false) + "}\n</style>\n";
}

}  // namespace

std::string html_element(const std::string& tag, const std::string& words, const std::string& classes) {
    return "<" + tag + (classes.empty() ? "" : " class=\"" + classes + "\"") + ">" + xml_text(words) + "</" +
           tag.substr(0, tag.find(' ')) + ">";
}

std::string html_table(const TextTable& rows, bool prose) {
    std::string html = "<div class=\"wide\"><table>\n";
    for (size_t i = 0; i < rows.size(); ++i) {
        html += "<tr>";
        for (const auto& cell : rows[i])
            html += html_element(i == 0 ? "th" : "td", cell, prose && i > 0 ? "long" : "");
        html += "</tr>\n";
    }
    return html + "</table></div>\n";
}

std::string html_figure(const Svg& svg, const std::string& caption) {
    return "<figure>\n" + svg.in_page() + html_element("figcaption", caption) + "\n</figure>\n";
}

std::string html_page(const std::string& title, const std::string& body, const std::string& made_by) {
    return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
           "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n" +
           html_element("title", title) + "\n" + style() + "</head>\n<body>\n<main>\n" +
           html_element("h1", title) + "\n" + body + "<footer>" + xml_text(made_by) +
           "</footer>\n</main>\n</body>\n</html>\n";
}

}  // namespace speedrun

#include "lab/report.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/file_io.h"

namespace resnet {

namespace {

namespace fs = std::filesystem;

constexpr size_t kMostRows = 50;  // of a table on the page; of a longer one, these:
constexpr size_t kFirstRows = 30;
constexpr size_t kLastRows = 10;

/// Sizes grow with the window, for the last row of a lecture hall. Every pair of text and ground has a contrast of
/// 4.5 to 1 or more (WCAG AA). --card is the figures' own ground in plot/chart.cpp. Print is always light.
constexpr const char* kStyle = R"css(:root {
  color-scheme: light dark;
  --page: #f4f5f7;
  --card: #ffffff;
  --ink: #1b1f24;
  --quiet: #57606a;
  --line: #d0d7de;
  --link: #0b5cad;
  --claim: #fff3cd;
  --mark: #b36b00;
  --code: #e9edf2;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #0d0f13;
    --card: #14171c;
    --ink: #e8eaed;
    --quiet: #a9b0ba;
    --line: #363d47;
    --link: #7cc0ff;
    --claim: #2e2810;
    --mark: #e3b341;
    --code: #1d2229;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0;
  background: var(--page);
  color: var(--ink);
  font: clamp(1.0625rem, 0.95rem + 0.4vw, 1.3125rem)/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
    "DejaVu Sans", sans-serif;
}
main { max-width: 1100px; margin: 0 auto; padding: clamp(1rem, 3vw, 2.25rem); }
h1 {
  margin: 0;
  font-size: clamp(2.125rem, 1.4rem + 2.6vw, 3.5rem);
  line-height: 1.1;
  letter-spacing: -0.015em;
  text-wrap: balance;
}
h2 { margin: 2.5rem 0 0.75rem; font-size: 1.5em; line-height: 1.2; }
p, li, figcaption, td, th { overflow-wrap: break-word; }
a { color: var(--link); }
.claim {
  margin: 1.25rem 0 2rem;
  padding: 0.8rem 1.25rem;
  border-left: 0.4rem solid var(--mark);
  border-radius: 0 0.5rem 0.5rem 0;
  background: var(--claim);
  font-size: 1.3em;
  font-weight: 600;
  line-height: 1.35;
  -webkit-print-color-adjust: exact;
  print-color-adjust: exact;
}
figure {
  margin: 0 0 2rem;
  padding: clamp(0.25rem, 1vw, 0.75rem);
  border: 1px solid var(--line);
  border-radius: 0.6rem;
  background: var(--card);
}
img { display: block; width: 100%; height: auto; }
figcaption { padding: 0.5rem 0.75rem; color: var(--quiet); }
.findings { margin: 0; padding-left: 1.4em; }
.findings li { max-width: 75ch; margin: 0.45rem 0; }
.scroll { overflow-x: auto; }
table {
  min-width: 50%;
  border-collapse: collapse;
  background: var(--card);
  font-variant-numeric: tabular-nums lining-nums;
}
th, td { padding: 0.4rem 0.9rem; border: 1px solid var(--line); text-align: left; vertical-align: top; }
th { border-bottom: 2px solid var(--quiet); font-weight: 600; vertical-align: bottom; }
.number { text-align: right; }
td.number, td:first-child { white-space: nowrap; }
.cut td { color: var(--quiet); text-align: center; }
pre {
  margin: 0;
  padding: 0.9rem 1.25rem;
  border: 1px solid var(--line);
  border-radius: 0.5rem;
  background: var(--code);
  font: 1em/1.5 ui-monospace, "Cascadia Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
pre::before { content: "$ "; color: var(--quiet); }
footer {
  margin-top: 3rem;
  padding-top: 0.9rem;
  border-top: 1px solid var(--line);
  color: var(--quiet);
  font-size: 0.85rem;
}
footer ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.75rem; margin: 0; padding: 0; list-style: none; }
footer p { margin: 0.5rem 0 0; }
.lead { margin: 1rem 0 2rem; color: var(--quiet); font-size: 1.15em; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); gap: 1.5rem; }
.card {
  position: relative;
  display: flex;
  flex-direction: column;
  padding: 1.25rem;
  border: 1px solid var(--line);
  border-radius: 0.6rem;
  background: var(--card);
}
.card:hover, .card:focus-within { border-color: var(--link); }
.card h2 { margin: 0 0 0.5rem; font-size: 1.35em; }
.card a::after { content: ""; position: absolute; inset: 0; }
.card p { margin: 0 0 1rem; }
.card picture { margin-top: auto; }
@media print {
  :root { color-scheme: light; --page: #ffffff; }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  figure, tr, pre, .claim, .card { break-inside: avoid; }
  h2 { break-after: avoid; }
}
)css";

/// `raw` as text of an element or as an attribute's value within double quotes.
std::string text(std::string_view raw) {
  std::string out;
  for (size_t at = 0; at < raw.size();) {
    const auto point = code_point_at(raw, at);
    const size_t bytes = point ? point->bytes : 1;
    const bool shown = point && (is_printable(point->value) || point->value == U'\n' || point->value == U'\t');
    const char32_t c = shown ? point->value : U'\ufffd';
    switch (c) {
      case U'&': out += "&amp;"; break;
      case U'<': out += "&lt;"; break;
      case U'>': out += "&gt;"; break;
      case U'"': out += "&quot;"; break;
      case U'\'': out += "&#39;"; break;
      case U'\ufffd': out += "\ufffd"; break;
      default: out += raw.substr(at, bytes);
    }
    at += bytes;
  }
  return out;
}

/// RFC 4648, Sec. 4.
std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t at = 0; at < bytes.size(); at += 3) {
    const auto byte = [&](size_t i) -> uint32_t {
      return at + i < bytes.size() ? static_cast<unsigned char>(bytes[at + i]) : 0u;
    };
    const uint32_t group = (byte(0) << 16) | (byte(1) << 8) | byte(2);
    const size_t digits = std::min<size_t>(bytes.size() - at, 3) + 1;
    for (size_t i = 0; i < 4; ++i) out += i < digits ? kDigits[(group >> (18 - 6 * i)) & 63] : '=';
  }
  return out;
}

/// For a file's name, a link and a shell alike.
bool plain_name(const std::string& name) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  };
  return !name.empty() && name.size() <= 100 && name.front() != '-' && std::all_of(name.begin(), name.end(), plain);
}

void check_name(const Report& report) {
  check(plain_name(report.name) && report.name != "index", "report: a name that is no plain file name");
}

/// "Test error, %" -> "test-error"
std::string name_of_title(const std::string& title) {
  std::string name;
  for (const char c : title) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) {
      name += lower;
    } else if (!name.empty() && name.back() != '-') {
      name += '-';
    }
  }
  name = name.substr(0, 60);
  if (!name.empty() && name.back() == '-') name.pop_back();
  return name.empty() ? "table" : name;
}

struct FileNames {
  std::vector<std::string> tables;   // NAME.csv
  std::vector<std::string> figures;  // NAME, for .svg and .png
};

FileNames file_names(const Report& report) {
  check_name(report);
  FileNames names;
  for (const ReportTable& table : report.tables) {
    const bool only = report.tables.size() == 1;
    names.tables.push_back(report.name + (only ? "" : "-" + name_of_title(table.title)) + ".csv");
  }
  for (const ReportFigure& figure : report.figures) {
    const bool only = report.figures.size() == 1 && figure.name.empty();
    check(only || plain_name(figure.name), "report: a figure's name that is no plain file name");
    names.figures.push_back(report.name + (only ? "" : "-" + figure.name));
  }
  for (const auto& list : {names.tables, names.figures}) {
    check(std::set<std::string>(list.begin(), list.end()).size() == list.size(), "report: two files of one name");
  }
  return names;
}

/// 0.918, -3, 1.2e-05, 84.2 %, 12.3 ± 0.4, 3.2 GB, 1.8x: begins as a number does and has no word in it.
bool is_number(std::string_view cell) {
  for (const std::string_view sign : {"+", "-", "\u2212", "\u00b1", "<", ">", "~", "\u2248", "\u2264", "\u2265"}) {
    if (!cell.starts_with(sign)) continue;
    cell.remove_prefix(sign.size());
    break;
  }
  while (cell.starts_with(' ')) cell.remove_prefix(1);
  if (cell.starts_with('.')) cell.remove_prefix(1);
  if (cell.empty() || cell.front() < '0' || cell.front() > '9') return false;
  int letters = 0;
  for (const char c : cell) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    letters = letter ? letters + 1 : 0;
    if (letters > 3) return false;
  }
  return true;
}

/// Stands in a column of numbers where there is none.
bool is_blank(std::string_view cell) {
  for (const std::string_view blank : {"", "-", "\u2013", "\u2014", "n/a", "nan", "inf", "-inf", "not finite"}) {
    if (cell == blank) return true;
  }
  return false;
}

/// For each column, what its cells are to say for their alignment.
std::vector<const char*> cell_attributes(const ReportTable& table) {
  check(!table.header.empty(), "report: a table without columns");
  std::vector<const char*> attributes(table.header.size(), "");
  std::vector<bool> words(table.header.size(), false);
  for (const auto& row : table.rows) {
    check(row.size() == table.header.size(), "report: a row that is not as long as its header");
    for (size_t i = 0; i < row.size(); ++i) {
      if (is_blank(row[i])) continue;
      if (is_number(row[i])) {
        attributes[i] = " class=\"number\"";
      } else {
        words[i] = true;
      }
    }
  }
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i]) attributes[i] = "";
  }
  return attributes;
}

std::string heading_of(const ReportTable& table) { return table.title.empty() ? "Numbers" : table.title; }

std::string table_html(const ReportTable& table, const std::string& file) {
  const std::vector<const char*> attributes = cell_attributes(table);
  // A table that is wider than the window scrolls in a box of its own, with the keyboard too.
  std::string out =
      fmt::format("<section>\n<h2>{0}</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\">\n",
                  text(heading_of(table)));
  out += "<table>\n<thead>\n<tr>";
  for (size_t i = 0; i < table.header.size(); ++i) {
    out += fmt::format("<th scope=\"col\"{}>{}</th>", attributes[i], text(table.header[i]));
  }
  out += "</tr>\n</thead>\n<tbody>\n";
  const bool cut = table.rows.size() > kMostRows;
  for (size_t row = 0; row < table.rows.size(); ++row) {
    if (cut && row == kFirstRows) {
      const size_t left_out = table.rows.size() - kFirstRows - kLastRows;
      out += fmt::format("<tr class=\"cut\"><td colspan=\"{}\">{} more rows here; all of them are in {}</td></tr>\n",
                         table.header.size(), left_out, text(file));
      row += left_out;
    }
    out += "<tr>";
    for (size_t i = 0; i < table.header.size(); ++i) {
      out += fmt::format("<td{}>{}</td>", attributes[i], text(table.rows[row][i]));
    }
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table>\n</div>\n</section>\n";
}

/// Drawn at about the width that the page shows it in, so that its text is as large as the page's.
FigureSize size_of(const ReportFigure& figure) {
  const int rows = static_cast<int>((figure.panels.size() + 1) / 2);
  return {.width = 960, .height = figure.panels.size() < 2 ? 440 : 400 * rows, .columns = 2};
}

/// The chart for either scheme, within the page.
std::string picture_html(const std::vector<Chart>& panels, const FigureSize& size) {
  const auto source = [&](Theme theme) {
    return "data:image/svg+xml;base64," + base64(render_svg(panels, size, theme));
  };
  std::string titles;
  for (const Chart& panel : panels) {
    if (!panel.title.empty()) titles += (titles.empty() ? ": " : "; ") + panel.title;
  }
  return fmt::format(
      "<picture>\n<source media=\"screen and (prefers-color-scheme: dark)\" srcset=\"{}\">\n"
      "<img src=\"{}\" width=\"{}\" height=\"{}\" alt=\"{}\">\n</picture>\n",
      source(Theme::dark), source(Theme::light), size.width, size.height, text("Line chart" + titles));
}

std::string list_html(const char* attributes, const std::vector<std::string>& items) {
  std::string out = fmt::format("<ul{}>\n", attributes);
  for (const std::string& item : items) out += fmt::format("<li>{}</li>\n", text(item));
  return out + "</ul>\n";
}

std::string page_html(const std::string& title, const std::string& content) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n"
      "<body>\n<main>\n{}</main>\n</body>\n</html>\n",
      text(title), kStyle, content);
}

std::string foot_html(const Report& report, const FileNames& names) {
  std::vector<std::string> files = names.tables;
  for (const std::string& figure : names.figures) {
    for (const char* ending : {".svg", ".png"}) files.push_back(figure + ending);
  }
  if (report.notes.empty() && files.empty()) return "";
  std::string out = "<footer>\n";
  if (!report.notes.empty()) out += list_html("", report.notes);
  if (!files.empty()) {
    out += "<p>Beside this page:";
    for (const std::string& file : files) out += fmt::format(" <a href=\"{0}\">{0}</a>", file);
    out += "</p>\n";
  }
  return out + "</footer>\n";
}

std::string csv_field(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string out = "\"";
  for (const char c : field) {
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

void append_csv_row(std::string& out, const std::vector<std::string>& row) {
  for (size_t i = 0; i < row.size(); ++i) {
    if (i > 0) out += ',';
    out += csv_field(row[i]);
  }
  if (row.size() == 1 && row[0].empty()) out += "\"\"";  // an empty line would be no row
  out += '\n';
}

void make_folder(const std::string& folder) {
  std::error_code error;
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) throw io_error(folder, "create the reports' folder", error.value());
}

}  // namespace

std::string render_report_html(const Report& report) {
  const FileNames names = file_names(report);
  std::string out = fmt::format("<header>\n<h1>{}</h1>\n", text(report.title));
  if (!report.claim.empty()) out += fmt::format("<p class=\"claim\">{}</p>\n", text(report.claim));
  out += "</header>\n";
  for (const ReportFigure& figure : report.figures) {
    out += "<figure>\n" + picture_html(figure.panels, size_of(figure));
    if (!figure.caption.empty()) out += fmt::format("<figcaption>{}</figcaption>\n", text(figure.caption));
    out += "</figure>\n";
  }
  if (!report.findings.empty()) {
    out += "<section>\n<h2>What was measured</h2>\n" + list_html(" class=\"findings\"", report.findings);
    out += "</section>\n";
  }
  for (size_t i = 0; i < report.tables.size(); ++i) out += table_html(report.tables[i], names.tables[i]);
  if (!report.command.empty()) {
    out +=
        fmt::format("<section>\n<h2>Reproduce it</h2>\n<pre><code>{}</code></pre>\n</section>\n", text(report.command));
  }
  return page_html(report.title, out + foot_html(report, names));
}

std::string render_csv(const ReportTable& table) {
  std::string out;
  append_csv_row(out, table.header);
  for (const auto& row : table.rows) {
    check(row.size() == table.header.size(), "report: a row that is not as long as its header");
    append_csv_row(out, row);
  }
  return out;
}

std::vector<std::string> write_report(const std::string& folder, const Report& report) {
  const FileNames names = file_names(report);
  const std::string page = render_report_html(report);  // our own bugs show before any file changes
  make_folder(folder);
  const auto path_of = [&](const std::string& name) { return (fs::path(folder) / name).string(); };
  std::vector<std::string> paths{path_of(report.name + ".html")};
  const auto write = [&](const std::string& name, const std::string& bytes) {
    paths.push_back(path_of(name));
    atomic_write_file(paths.back(), bytes);
  };
  for (size_t i = 0; i < report.tables.size(); ++i) write(names.tables[i], render_csv(report.tables[i]));
  for (size_t i = 0; i < report.figures.size(); ++i) {
    const ReportFigure& figure = report.figures[i];
    write(names.figures[i] + ".svg", render_svg(figure.panels, size_of(figure)));
    write(names.figures[i] + ".png", render_png(figure.panels, size_of(figure)));
  }
  atomic_write_file(paths.front(), page);
  return paths;
}

std::string write_report_index(const std::string& folder, const std::vector<Report>& reports) {
  std::set<std::string> names;
  std::string cards;
  for (const Report& report : reports) {
    check_name(report);
    check(names.insert(report.name).second, "report: two reports of one name");
    cards += fmt::format("<article class=\"card\">\n<h2><a href=\"{}.html\">{}</a></h2>\n<p>{}</p>\n", report.name,
                         text(report.title), text(report.claim));
    if (!report.figures.empty() && !report.figures.front().panels.empty()) {
      cards += picture_html({report.figures.front().panels.front()}, {.width = 560, .height = 320});
    }
    cards += "</article>\n";
  }
  const std::string title = "The lecture\u2019s claims, measured";
  std::string content = fmt::format("<header>\n<h1>{}</h1>\n</header>\n", title);
  if (reports.empty()) {
    content += "<p class=\"lead\">No experiment has been run yet.</p>\n";
  } else {
    content +=
        "<p class=\"lead\">One experiment a card: the claim, a first picture, and the way to what was measured.</p>\n";
    content += "<div class=\"cards\">\n" + cards + "</div>\n";
  }
  make_folder(folder);
  const std::string path = (fs::path(folder) / "index.html").string();
  atomic_write_file(path, page_html(title, content));
  return path;
}

}  // namespace resnet

#include "lab/report.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/temporary_directory.h"

namespace resnet {
namespace {

Report small_report() {
  Report report;
  report.name = "gradient-flow";
  report.title = "Where does the gradient go?";
  report.claim = "A shortcut keeps the first layer's gradient alive.";
  report.command = "resnet lab gradient-flow --depths 20,56";
  report.findings = {"plain-56: first/last = 1.3e-07", "residual-56: first/last = 0.84"};
  report.tables = {{.title = "Ratio of first to last layer",
                    .header = {"net", "depth", "ratio"},
                    .rows = {{"plain", "20", "2.1e-03"}, {"residual", "20", "0.918"}}}};
  const Chart norms{.title = "Gradient norm",
                    .x_label = "layer",
                    .series = {{"plain-20", {1, 2, 3}, {0.1, 1, 4}}, {"residual-20", {1, 2, 3}, {2, 3, 2}}},
                    .log_y = true};
  report.figures = {{.name = "", .caption = "Norm of the loss gradient at each layer", .panels = {norms}}};
  report.notes = {"two cores", "12 s", "0.4 GB"};
  return report;
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

/// A reader of the HTML that we write: tags are closed in order, attributes quoted and given once, references known,
/// children under the parents that HTML5 lets them have.
class HtmlChecker {
 public:
  explicit HtmlChecker(const std::string& html) : html_(html) {}

  /// The first fault with its place; "" when there is none.
  std::string fault() {
    const std::string doctype = "<!DOCTYPE html>\n";
    if (!html_.starts_with(doctype)) return "no doctype";
    at_ = doctype.size();
    while (at_ < html_.size() && fault_.empty()) {
      if (html_[at_] == '<') {
        tag();
      } else {
        character();
      }
    }
    if (fault_.empty() && !open_.empty()) fail("<" + open_.back() + "> is never closed");
    for (const char* once : {"html", "head", "title", "style", "body", "main", "h1"}) {
      if (fault_.empty() && seen_[once] != 1) fail(std::string("not one <") + once + ">");
    }
    return fault_;
  }

 private:
  void fail(const std::string& why) {
    fault_ = why + " at byte " + std::to_string(at_) + ": " + html_.substr(at_, 60);
    at_ = html_.size();
  }

  void character() {
    const auto point = code_point_at(html_, at_);
    if (!point) return fail("not UTF-8");
    const char32_t c = point->value;
    if ((c < 0x20 && c != U'\n' && c != U'\t') || (c >= 0x7f && c <= 0x9f)) return fail("a control character");
    if (c == U'>') return fail("a bare >");
    if (c == U'&') {
      const std::vector<std::string> known{"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
      if (std::none_of(known.begin(), known.end(),
                       [&](const std::string& r) { return html_.compare(at_, r.size(), r) == 0; }))
        return fail("a bare &");
    }
    const bool blank = c == U' ' || c == U'\n';
    const bool no_text_here = open_.empty() || open_.back() == "html" || open_.back() == "head" ||
                              open_.back() == "ul" || open_.back() == "table" || open_.back() == "tr" ||
                              open_.back() == "picture";
    if (!blank && no_text_here) return fail("text where none may be");
    at_ += point->bytes;
  }

  std::string word(const std::string& more) {
    const size_t begin = at_;
    while (at_ < html_.size() &&
           (std::islower(static_cast<unsigned char>(html_[at_])) != 0 || more.find(html_[at_]) != std::string::npos)) {
      ++at_;
    }
    return html_.substr(begin, at_ - begin);
  }

  void tag() {
    ++at_;
    if (html_[at_] == '/') {
      ++at_;
      const std::string name = word("123456");
      if (open_.empty() || open_.back() != name) return fail("</" + name + "> closes another element");
      if (html_[at_] != '>') return fail("a closing tag that does not end");
      open_.pop_back();
      ++at_;
      return;
    }
    const std::string name = word("123456");
    static const std::map<std::string, std::string> parents = {{"html", ""},
                                                               {"head", "html"},
                                                               {"body", "html"},
                                                               {"title", "head"},
                                                               {"style", "head"},
                                                               {"meta", "head"},
                                                               {"main", "body"},
                                                               {"header", "main"},
                                                               {"footer", "main"},
                                                               {"section", "main"},
                                                               {"figure", "main"},
                                                               {"article", "div"},
                                                               {"h1", "header"},
                                                               {"h2", "section article"},
                                                               {"p", "header footer main article"},
                                                               {"div", "main section"},
                                                               {"ul", "section footer"},
                                                               {"li", "ul"},
                                                               {"a", "p h2"},
                                                               {"picture", "figure article"},
                                                               {"source", "picture"},
                                                               {"img", "picture"},
                                                               {"figcaption", "figure"},
                                                               {"table", "div"},
                                                               {"thead", "table"},
                                                               {"tbody", "table"},
                                                               {"tr", "thead tbody"},
                                                               {"th", "tr"},
                                                               {"td", "tr"},
                                                               {"pre", "section"},
                                                               {"code", "pre"}};
    const auto known = parents.find(name);
    if (known == parents.end()) return fail("<" + name + "> is no element of a report");
    const std::string parent = open_.empty() ? "" : open_.back();
    std::istringstream allowed(known->second);
    bool fits = parent.empty() && known->second.empty();
    for (std::string one; allowed >> one;) fits = fits || one == parent;
    if (!fits) return fail("<" + name + "> under <" + parent + ">");
    ++seen_[name];
    attributes(name);
    if (!fault_.empty()) return;
    if (name == "meta" || name == "source" || name == "img") return;
    open_.push_back(name);
    if (name == "style") {
      const size_t end = html_.find("</", at_);
      if (end == std::string::npos) return fail("<style> without an end");
      at_ = end;
    }
  }

  void attributes(const std::string& element) {
    std::map<std::string, std::string> given;
    while (html_[at_] == ' ') {
      ++at_;
      const std::string name = word("-");
      if (name.empty() || name.starts_with("on") || name == "style") return fail("no attribute of a report: " + name);
      if (html_.compare(at_, 2, "=\"") != 0) return fail("an attribute without a quoted value");
      at_ += 2;
      const size_t begin = at_;
      while (at_ < html_.size() && html_[at_] != '"' && fault_.empty()) {
        if (html_[at_] == '<') return fail("< within an attribute");
        if (html_[at_] == '&' && html_.compare(at_, 5, "&amp;") != 0 && html_.compare(at_, 4, "&lt;") != 0 &&
            html_.compare(at_, 4, "&gt;") != 0 && html_.compare(at_, 6, "&quot;") != 0 &&
            html_.compare(at_, 5, "&#39;") != 0) {
          return fail("a bare & within an attribute");
        }
        ++at_;
      }
      if (at_ == html_.size()) return fail("an attribute that does not end");
      if (!given.emplace(name, html_.substr(begin, at_ - begin)).second) return fail("an attribute given twice");
      ++at_;
    }
    if (html_[at_] != '>') return fail("a tag that does not end");
    ++at_;
    if (element == "img" && (!given.contains("alt") || !given.contains("src"))) return fail("<img> without alt or src");
    if (element == "source" && !given.contains("srcset")) return fail("<source> without srcset");
    if (element == "html" && given["lang"] != "en") return fail("<html> without a language");
  }

  const std::string& html_;
  size_t at_ = 0;
  std::string fault_;
  std::vector<std::string> open_;
  std::map<std::string, int> seen_;
};

std::string fault_in(const std::string& html) { return HtmlChecker(html).fault(); }

std::string decode_base64(const std::string& digits) {
  const std::string alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  EXPECT_EQ(digits.size() % 4, 0u);
  std::string out;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : digits.substr(0, digits.find('='))) {
    const size_t value = alphabet.find(c);
    if (value == std::string::npos) {
      ADD_FAILURE() << "no base64 digit: " << c;
      return "";
    }
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xffff;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    out += static_cast<char>((bits >> held) & 0xff);
  }
  return out;
}

/// The figures of a page, decoded, in order; and the page without them.
std::pair<std::vector<std::string>, std::string> split_figures(const std::string& html) {
  const std::string mark = "data:image/svg+xml;base64,";
  std::vector<std::string> figures;
  std::string rest;
  size_t at = 0;
  for (size_t found = html.find(mark); found != std::string::npos; found = html.find(mark, at)) {
    rest += html.substr(at, found - at);
    at = html.find('"', found);
    figures.push_back(decode_base64(html.substr(found + mark.size(), at - found - mark.size())));
  }
  return {figures, rest + html.substr(at)};
}

TEST(Report, the_page_is_well_formed_and_holds_every_part_in_the_order_of_a_lecture) {
  const std::string html = render_report_html(small_report());
  EXPECT_EQ(fault_in(html), "");
  size_t before = html.find("<main>");
  for (const char* part :
       {"<h1>Where does the gradient go?</h1>",
        "<p class=\"claim\">A shortcut keeps the first layer&#39;s gradient alive.</p>",
        "<img src=\"data:image/svg+xml;base64,", "alt=\"Line chart: Gradient norm\"",
        "<figcaption>Norm of the loss gradient at each layer</figcaption>", "<h2>What was measured</h2>",
        "<li>plain-56: first/last = 1.3e-07</li>", "<li>residual-56: first/last = 0.84</li>",
        "<h2>Ratio of first to last layer</h2>", "<td>residual</td>", "<h2>Reproduce it</h2>",
        "<pre><code>resnet lab gradient-flow --depths 20,56</code></pre>", "<footer>", "<li>two cores</li>",
        "<li>12 s</li>", "<li>0.4 GB</li>", "gradient-flow.csv"}) {
    const size_t at = html.find(part);
    ASSERT_NE(at, std::string::npos) << part;
    EXPECT_GT(at, before) << part;
    before = at;
  }
  EXPECT_EQ(html, render_report_html(small_report()));
}

TEST(Report, parts_that_are_not_there_leave_no_empty_heading) {
  Report report;
  report.name = "bare";
  report.title = "Bare";
  const std::string html = render_report_html(report);
  EXPECT_EQ(fault_in(html), "");
  for (const char* part : {"<h2>", "<ul", "<table", "<figure", "<pre>", "<footer>", "class=\"claim\""}) {
    EXPECT_EQ(html.find(part), std::string::npos) << part;
  }
}

TEST(Report, hostile_text_is_shown_as_it_is_and_never_read_as_markup) {
  const std::string hostile =
      "</style></title><script>alert(1)</script>\"'><img src=x "
      "onerror=y>&amp;<!--\x1b[31m\xff\xc0\xaf\xef\xbf\xbe\xc2\x85";
  const std::string shown =
      "&lt;/style&gt;&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&gt;&lt;img src=x onerror=y&gt;"
      "&amp;amp;&lt;!--\ufffd[31m\ufffd\ufffd\ufffd\ufffd\ufffd";
  Report report = small_report();
  report.title = report.claim = report.command = hostile;
  report.findings = report.notes = {hostile};
  report.tables = {{.title = hostile, .header = {hostile}, .rows = {{hostile}}}};
  ReportFigure& figure = report.figures[0];
  figure.caption = figure.panels[0].title = figure.panels[0].x_label = figure.panels[0].series[0].name = hostile;
  const std::string html = render_report_html(report);
  EXPECT_EQ(fault_in(html), "");
  // <title>, h1, claim, alt, caption, finding, the table's heading, label, header and cell, command, note.
  EXPECT_EQ(count_of(html, shown), 12u);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find('\x1b'), std::string::npos);
  const TemporaryDirectory folder;
  EXPECT_EQ(fault_in(content_of(write_report_index(folder.path(), {report}))), "");
}

TEST(Report, every_figure_is_embedded_for_a_light_and_for_a_dark_page) {
  Report report = small_report();
  report.figures[0].name = "norms";
  report.figures.push_back(report.figures[0]);
  report.figures[1].name = "three";
  report.figures[1].panels.resize(3, report.figures[0].panels[0]);
  const TemporaryDirectory folder;
  write_report(folder.path(), report);
  const std::string html = content_of(folder / "gradient-flow.html");
  const auto [figures, rest] = split_figures(html);
  ASSERT_EQ(figures.size(), 4u);
  EXPECT_EQ(count_of(rest, "<source media=\"screen and (prefers-color-scheme: dark)\" srcset=\"\">"), 2u);
  EXPECT_EQ(count_of(rest, "<img src=\"\""), 2u);
  for (const std::string& figure : figures) {
    EXPECT_TRUE(figure.starts_with("<?xml ")) << figure.substr(0, 40);
    EXPECT_NE(figure.find("<svg "), std::string::npos);
    EXPECT_TRUE(figure.ends_with("</svg>\n")) << figure.substr(figure.size() - 20);
  }
  EXPECT_EQ(figures[1], content_of(folder / "gradient-flow-norms.svg"));
  EXPECT_EQ(figures[3], content_of(folder / "gradient-flow-three.svg"));
  EXPECT_NE(figures[0], figures[1]);
  // The ground of the dark figure is the card that it lies on, --card: #14171c.
  EXPECT_NE(figures[0].find("fill:rgb(7.843137%,9.019608%,10.980392%);fill-opacity:1;stroke:none;"), std::string::npos);
  EXPECT_NE(html.find("--card: #14171c"), std::string::npos);
}

TEST(Report, nothing_on_the_page_is_fetched_and_nothing_runs) {
  const TemporaryDirectory folder;
  for (const std::string& html :
       {render_report_html(small_report()), content_of(write_report_index(folder.path(), {small_report()}))}) {
    const auto [figures, rest] = split_figures(html);
    ASSERT_GE(figures.size(), 2u);
    for (const char* part : {"//", "http:", "https:", "url(", "@import", "<script", "<link", "<iframe",
                             "javascript:", "src=\"f", "src=\"/"}) {
      EXPECT_EQ(rest.find(part), std::string::npos) << part;
    }
    for (const std::string& figure : figures) {
      EXPECT_EQ(count_of(figure, "href=\""), count_of(figure, "href=\"#")) << "a reference out of the picture";
      EXPECT_EQ(figure.find("<script"), std::string::npos);
      EXPECT_EQ(figure.find("<image"), std::string::npos);
    }
  }
}

TEST(Report, text_has_the_contrast_of_wcag_aa_in_both_schemes) {
  const std::string html = render_report_html(small_report());
  size_t at = html.find("<style>");
  for (const char* scheme : {"light", "dark"}) {
    const size_t begin = html.find(":root {", at);
    const size_t end = html.find('}', begin);
    at = end;
    std::map<std::string, double> luminance;
    std::istringstream lines(html.substr(begin, end - begin));
    for (std::string line; std::getline(lines, line);) {
      const size_t name = line.find("--");
      const size_t color = line.find(": #");
      if (name == std::string::npos || color == std::string::npos) continue;
      const double weights[] = {0.2126, 0.7152, 0.0722};
      double sum = 0;
      for (size_t i = 0; i < 3; ++i) {
        const double v = std::stoi(line.substr(color + 3 + 2 * i, 2), nullptr, 16) / 255.0;
        sum += weights[i] * (v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4));
      }
      luminance[line.substr(name + 2, color - name - 2)] = sum;
    }
    ASSERT_EQ(luminance.size(), 9u) << scheme;
    for (const auto& [text, ground] : std::vector<std::pair<const char*, const char*>>{{"ink", "page"},
                                                                                       {"ink", "card"},
                                                                                       {"ink", "claim"},
                                                                                       {"ink", "code"},
                                                                                       {"quiet", "page"},
                                                                                       {"quiet", "card"},
                                                                                       {"quiet", "code"},
                                                                                       {"link", "page"},
                                                                                       {"link", "card"}}) {
      const double a = luminance.at(text);
      const double b = luminance.at(ground);
      EXPECT_GE((std::max(a, b) + 0.05) / (std::min(a, b) + 0.05), 4.5) << text << " on " << ground << ", " << scheme;
    }
    EXPECT_EQ(luminance["page"] > luminance["ink"], std::string(scheme) == "light");
  }
}

TEST(Report, columns_of_numbers_are_aligned_to_the_right_and_columns_with_a_word_are_not) {
  Report report = small_report();
  report.tables = {{.title = "",
                    .header = {"net", "n", "error", "block", "memory", "missing"},
                    .rows = {{"plain", "20", "12.3 \u00b1 0.4", "3x3 conv", "3.2 GB", "-"},
                             {"1202", "-1.5e-07", "84.2 %", "7", ".5x", ""}}}};
  const std::string html = render_report_html(report);
  EXPECT_EQ(fault_in(html), "");
  EXPECT_NE(html.find("<tr><th scope=\"col\">net</th><th scope=\"col\" class=\"number\">n</th>"), std::string::npos);
  EXPECT_NE(html.find("<tr><td>plain</td><td class=\"number\">20</td><td class=\"number\">12.3 \u00b1 0.4</td>"
                      "<td>3x3 conv</td><td class=\"number\">3.2 GB</td><td>-</td></tr>"),
            std::string::npos);
  EXPECT_NE(html.find("<tr><td>1202</td><td class=\"number\">-1.5e-07</td><td class=\"number\">84.2 %</td>"
                      "<td>7</td><td class=\"number\">.5x</td><td></td></tr>"),
            std::string::npos);
  EXPECT_NE(html.find(".number { text-align: right;"), std::string::npos);
  EXPECT_NE(html.find("tabular-nums"), std::string::npos);
}

TEST(Report, a_long_table_is_cut_on_the_page_and_whole_in_its_file) {
  Report report = small_report();
  ReportTable& table = report.tables[0];
  table = {.title = "Layers", .header = {"layer"}, .rows = {}};
  for (int i = 0; i < 50; ++i) table.rows.push_back({fmt::format("{}", 1000 + i)});
  EXPECT_EQ(count_of(render_report_html(report), "<td class=\"number\">"), 50u);
  EXPECT_EQ(render_report_html(report).find("more rows"), std::string::npos);
  for (int i = 50; i < 1202; ++i) table.rows.push_back({fmt::format("{}", 1000 + i)});
  const std::string html = render_report_html(report);
  EXPECT_EQ(fault_in(html), "");
  EXPECT_EQ(count_of(html, "<td class=\"number\">"), 40u);
  EXPECT_NE(
      html.find("<td class=\"number\">1029</td></tr>\n<tr class=\"cut\"><td colspan=\"1\">1162 more rows here; all "
                "of them are in gradient-flow.csv</td></tr>\n<tr><td class=\"number\">2192</td>"),
      std::string::npos);
  EXPECT_NE(html.find("<td class=\"number\">2201</td></tr>\n</tbody>"), std::string::npos);
  EXPECT_EQ(count_of(render_csv(table), "\n"), 1203u);
}

TEST(Report, csv_fields_are_quoted_as_rfc_4180_has_it) {
  const ReportTable table{.title = "",
                          .header = {"net", "a, b", "say \"hi\""},
                          .rows = {{"plain", "1", "2"}, {"", "two\nlines", "\r"}, {" spaced ", "\"", "\u00fc;'\t"}}};
  EXPECT_EQ(render_csv(table),
            "net,\"a, b\",\"say \"\"hi\"\"\"\n"
            "plain,1,2\n"
            ",\"two\nlines\",\"\r\"\n"
            " spaced ,\"\"\"\",\u00fc;'\t\n");
  EXPECT_EQ(render_csv({.title = "", .header = {"only"}, .rows = {{""}, {"x"}}}), "only\n\"\"\nx\n");
}

TEST(Report, one_table_and_a_figure_without_a_name_take_the_reports_and_others_take_their_own_too) {
  const TemporaryDirectory folder;
  Report report = small_report();
  const std::string inner = folder / "docs/lab";
  std::vector<std::string> paths = write_report(inner, report);
  EXPECT_EQ(paths, (std::vector<std::string>{inner + "/gradient-flow.html", inner + "/gradient-flow.csv",
                                             inner + "/gradient-flow.svg", inner + "/gradient-flow.png"}));
  EXPECT_EQ(names_in(inner), (std::vector<std::string>{"gradient-flow.csv", "gradient-flow.html", "gradient-flow.png",
                                                       "gradient-flow.svg"}));
  EXPECT_EQ(content_of(paths[0]), render_report_html(report));
  EXPECT_EQ(content_of(paths[1]), "net,depth,ratio\nplain,20,2.1e-03\nresidual,20,0.918\n");
  EXPECT_EQ(content_of(paths[2]).substr(0, 5), "<?xml");
  EXPECT_EQ(content_of(paths[3]).substr(0, 8), "\x89PNG\r\n\x1a\n");

  report.tables.push_back({.title = "After 100 steps (%)", .header = {"x"}, .rows = {}});
  report.figures[0].name = "norms";
  report.figures.push_back({.name = "after_100", .caption = "", .panels = {}});
  paths = write_report(folder.path(), report);
  EXPECT_EQ(paths.size(), 7u);
  for (const char* name : {"gradient-flow-ratio-of-first-to-last-layer.csv", "gradient-flow-after-100-steps.csv",
                           "gradient-flow-norms.svg", "gradient-flow-norms.png", "gradient-flow-after_100.svg",
                           "gradient-flow-after_100.png"}) {
    EXPECT_EQ(std::count(paths.begin(), paths.end(), folder / name), 1) << name;
    EXPECT_TRUE(std::filesystem::exists(folder / name)) << name;
    EXPECT_NE(content_of(paths[0]).find(std::string("<a href=\"") + name + "\">"), std::string::npos) << name;
  }
  EXPECT_EQ(fault_in(content_of(paths[0])), "");
}

TEST(Report, a_report_replaces_the_one_before_and_a_write_that_fails_leaves_its_page_whole) {
  const TemporaryDirectory folder;
  Report report = small_report();
  write_report(folder.path(), report);
  const std::string before = content_of(folder / "gradient-flow.html");
  report.title = "Another title";
  // A folder in a file's place: its write fails, whoever runs the test.
  std::filesystem::remove(folder / "gradient-flow.png");
  std::filesystem::create_directory(folder / "gradient-flow.png");
  try {
    write_report(folder.path(), report);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("gradient-flow.png"), std::string::npos) << error.what();
  }
  EXPECT_EQ(content_of(folder / "gradient-flow.html"), before);
  EXPECT_EQ(names_in(folder.path()).size(), 4u) << "a temporary file is left";
  std::filesystem::remove(folder / "gradient-flow.png");
  write_report(folder.path(), report);
  EXPECT_NE(content_of(folder / "gradient-flow.html").find("<h1>Another title</h1>"), std::string::npos);
  EXPECT_EQ(names_in(folder.path()).size(), 4u);

  put(folder / "a-file", "");
  EXPECT_THROW(write_report(folder / "a-file", report), ResourceError);
  EXPECT_THROW(write_report_index(folder / "a-file", {report}), ResourceError);
}

TEST(Report, names_that_are_no_file_names_and_ragged_tables_are_our_own_bug_and_write_nothing) {
  const TemporaryDirectory folder;
  const auto refused = [&](const auto& change) {
    Report report = small_report();
    change(report);
    EXPECT_THROW(write_report(folder.path(), report), InternalError);
    EXPECT_TRUE(names_in(folder.path()).empty());
  };
  for (const char* name : {"", "..", "../x", "a/b", ".hidden", "-flag", "a b", "a\n", "index", "\u00fc"}) {
    SCOPED_TRACE(name);
    refused([&](Report& report) { report.name = name; });
  }
  const auto twice = [](auto& list) { list.push_back(list.front()); };
  refused([&](Report& report) { twice(report.tables); });
  refused([&](Report& report) { twice(report.figures); });
  refused([](Report& report) { report.figures = {{.name = "a"}, {.name = "../b"}}; });
  refused([](Report& report) { report.tables[0].rows[1].pop_back(); });
  refused([](Report& report) { report.tables[0].rows[0].push_back("4"); });
  refused([](Report& report) { report.tables[0] = {}; });
  EXPECT_THROW(write_report_index(folder.path(), {small_report(), small_report()}), InternalError);
  EXPECT_TRUE(names_in(folder.path()).empty());
}

TEST(Report, a_page_stays_small_however_much_was_measured) {
  Report report = small_report();
  report.figures.clear();
  EXPECT_LT(render_report_html(report).size(), 10'000u);
  Series noise{"noise", {}, {}};
  uint32_t state = 1;
  for (int i = 0; i < 200'000; ++i) {
    state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
    noise.x.push_back(i);
    noise.y.push_back(static_cast<double>(state >> 8));
    noise.low.push_back(noise.y.back() - 1e6);
    noise.high.push_back(noise.y.back() + 1e6);
  }
  report.figures = {{.name = "noise", .caption = "", .panels = {{.title = "Noise", .series = {noise, noise}}}}};
  report.tables[0].rows.resize(100'000, {"plain", "20", "0.5"});
  const std::string html = render_report_html(report);
  EXPECT_EQ(fault_in(html), "");
  EXPECT_LT(html.size(), 4'000'000u);
}

TEST(Report, the_index_has_a_card_for_each_report_with_its_first_panel) {
  const TemporaryDirectory folder;
  Report second = small_report();
  second.name = "degradation";
  second.title = "Do more layers help?";
  second.figures[0].panels.push_back(second.figures[0].panels[0]);
  second.figures[0].panels[1].title = "Second panel";
  Report third = small_report();
  third.name = "identity";
  third.figures.clear();
  const std::string path = write_report_index(folder.path(), {small_report(), second, third});
  EXPECT_EQ(path, folder / "index.html");
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{"index.html"});
  const std::string html = content_of(path);
  EXPECT_EQ(fault_in(html), "");
  EXPECT_EQ(count_of(html, "<article class=\"card\">"), 3u);
  EXPECT_LT(html.find("<a href=\"gradient-flow.html\">Where does the gradient go?</a>"),
            html.find("<a href=\"degradation.html\">Do more layers help?</a>"));
  EXPECT_NE(html.find("<a href=\"identity.html\">"), std::string::npos);
  EXPECT_EQ(count_of(html, "<p>A shortcut keeps the first layer&#39;s gradient alive.</p>"), 3u);
  EXPECT_EQ(split_figures(html).first.size(), 4u);
  EXPECT_EQ(html.find("Second panel"), std::string::npos);
  EXPECT_EQ(fault_in(content_of(write_report_index(folder.path(), {}))), "");
}

}  // namespace
}  // namespace resnet

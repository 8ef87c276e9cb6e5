#pragma once
// What an experiment found, and the files that show it: a page for the lecture hall's screen, a table for a
// spreadsheet, a picture for a slide. No experiment is known here.

#include <string>
#include <vector>

#include "plot/chart.h"

namespace resnet {

/// Cells are text, formatted by the experiment. A column of numbers is aligned to the right.
struct ReportTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header
};

struct ReportFigure {
  std::string name;  // part of a file's name: a-z, 0-9, '-', '_'; may be empty where there is one figure
  std::string caption;
  std::vector<Chart> panels;  // two in a row
};

struct Report {
  std::string name;   // the files' name: letters, digits, '-', '_'
  std::string title;  // what is asked, in a few words
  std::string claim;  // the lecture's claim, in one sentence
  std::string command;
  std::vector<std::string> findings;  // what was measured, in words with numbers
  std::vector<ReportTable> tables;
  std::vector<ReportFigure> figures;
  std::vector<std::string> notes;  // machine, seconds, memory
};

/// The page: one HTML file that needs no other and no network, without scripts, in the reader's light or dark scheme
/// (every figure is in it twice). Any text is shown as it is; a byte that is no UTF-8, or a control character other
/// than line feed and tab, becomes U+FFFD. A table of more than 50 rows is cut in the middle. The same report gives the
/// same bytes (on one machine).
std::string render_report_html(const Report& report);

/// The table as CSV: fields quoted as RFC 4180 has it, lines ended by '\n' alone, the header first.
std::string render_csv(const ReportTable& table);

/// Writes into `folder`, which is created:
///   NAME.html          the page
///   NAME.csv           the table; of several tables each is NAME-TABLE.csv, TABLE being its title in a-z, 0-9 and '-'
///   NAME.svg NAME.png  the figure, light; a figure with a name is NAME-FIGURE.svg and .png
/// Each file is replaced in one step, the page last. Returns their paths, the page first.
/// Throws ResourceError (ExitCode::io) when the disk refuses; InternalError when a name is no plain file name or is
/// there twice, or when a row is longer or shorter than its header.
std::vector<std::string> write_report(const std::string& folder, const Report& report);

/// Writes folder/index.html: for each report a card with its title, claim and first figure's first panel, and a link
/// to NAME.html. Self-contained as the pages are. Returns its path. Throws as write_report.
std::string write_report_index(const std::string& folder, const std::vector<Report>& reports);

}  // namespace resnet

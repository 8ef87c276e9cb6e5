#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "data/data_check.h"
#include "runtime/backends.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string action, path;
  int64_t threads = 0;
  bool json = false;
};

double per_minute(const DataReport& r) { return r.seconds > 0 ? 60 * static_cast<double>(r.checked) / r.seconds : 0; }

/// Smallest, middle and largest of the images' widths or heights.
struct Spread {
  int64_t least = 0, median = 0, most = 0;
};

Spread spread_of(const DataReport& r, bool of_width) {
  std::map<int64_t, int64_t> counts;
  int64_t total = 0;
  for (const auto& [size, images] : r.sizes) {
    counts[of_width ? size.first : size.second] += images;
    total += images;
  }
  if (total == 0) return {};
  Spread spread{.least = counts.begin()->first, .median = 0, .most = counts.rbegin()->first};
  int64_t seen = 0;
  for (const auto& [side, images] : counts) {
    seen += images;
    if (2 * seen < total) continue;
    spread.median = side;
    break;
  }
  return spread;
}

/// The sizes that most images have, at most ten.
std::vector<std::pair<std::pair<int64_t, int64_t>, int64_t>> common_sizes(const DataReport& r) {
  std::vector<std::pair<std::pair<int64_t, int64_t>, int64_t>> list(r.sizes.begin(), r.sizes.end());
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  constexpr size_t kMost = 10;
  if (list.size() > kMost) list.resize(kMost);
  return list;
}

void print_json(const DataReport& r) {
  json splits = json::array(), findings = json::array(), sizes = json::array();
  for (const auto& split : r.splits) {
    json classes = json::array();
    for (const auto& c : split.classes) classes.push_back({{"name", c.name}, {"images", c.images}});
    splits.push_back({{"name", split.name}, {"images", split.images}, {"classes", classes}});
  }
  for (const DataFinding& f : r.findings) {
    findings.push_back({{"kind", name_of(f.kind)}, {"files", f.files}, {"detail", f.detail}});
  }
  for (const auto& [size, images] : common_sizes(r)) {
    sizes.push_back({{"width", size.first}, {"height", size.second}, {"images", images}});
  }
  const auto spread = [](const Spread& s) { return json{{"min", s.least}, {"median", s.median}, {"max", s.most}}; };
  // A name that is not UTF-8 is written with replacement characters: JSON has no other way.
  std::printf("%s\n", json{{"path", r.path},
                           {"kind", r.kind},
                           {"images", r.images},
                           {"checked", r.checked},
                           {"splits", splits},
                           {"formats", r.formats},
                           {"modes", r.modes},
                           {"width", spread(spread_of(r, true))},
                           {"height", spread(spread_of(r, false))},
                           {"sizes", sizes},
                           {"exif_orientation", r.turned},
                           {"findings", findings},
                           {"notes", r.notes},
                           {"images_per_minute", per_minute(r)}}
                          .dump(-1, ' ', false, json::error_handler_t::replace)
                          .c_str());
}

void print_classes(const DataReport& r) {
  std::vector<std::vector<std::string>> rows = {{"", "class"}};
  for (const auto& split : r.splits) rows[0].push_back(split.name.empty() ? "images" : split.name);
  constexpr size_t kMostClasses = 100;
  const size_t classes = r.splits.empty() ? 0 : r.splits[0].classes.size();
  for (size_t k = 0; k < std::min(classes, kMostClasses); ++k) {
    std::vector<std::string> row = {std::to_string(k), r.splits[0].classes[k].name};
    for (const auto& split : r.splits) row.push_back(grouped(split.classes[k].images));
    rows.push_back(row);
  }
  if (classes > kMostClasses) rows.push_back({"...", fmt::format("{} more, see --json", classes - kMostClasses)});
  std::vector<std::string> sums = {"", "all"};
  for (const auto& split : r.splits) sums.push_back(grouped(split.images));
  rows.push_back(sums);
  std::printf("%s\n", table(rows, 2).c_str());
}

std::string counts_text(const std::map<std::string, int64_t>& counts) {
  std::vector<std::string> parts;
  for (const auto& [name, images] : counts) parts.push_back(fmt::format("{} {}", name, grouped(images)));
  return fmt::format("{}", fmt::join(parts, ", "));
}

void print_text(const DataReport& r) {
  std::printf("%s: %s, %s images in %zu classes\n\n", escape_control(r.path).c_str(), r.kind.c_str(),
              grouped(r.images).c_str(), r.splits.empty() ? size_t{0} : r.splits[0].classes.size());
  print_classes(r);
  std::vector<std::vector<std::string>> rows;
  if (!r.formats.empty()) rows.push_back({"formats", counts_text(r.formats)});
  if (!r.modes.empty()) rows.push_back({"modes", counts_text(r.modes)});
  const Spread width = spread_of(r, true), height = spread_of(r, false);
  rows.push_back({"width", fmt::format("{} to {}, median {}", width.least, width.most, width.median)});
  rows.push_back({"height", fmt::format("{} to {}, median {}", height.least, height.most, height.median)});
  std::vector<std::string> sizes;
  for (const auto& [size, images] : common_sizes(r)) {
    if (sizes.size() < 3) sizes.push_back(fmt::format("{}x{} {}", size.first, size.second, grouped(images)));
  }
  rows.push_back({"commonest sizes", fmt::format("{}{}", fmt::join(sizes, ", "), r.sizes.size() > 3 ? ", ..." : "")});
  for (const std::string& note : r.notes) rows.push_back({"note", note});
  std::printf("%s\n", table(rows, 2).c_str());
  if (r.findings.empty()) {
    std::printf("nothing found\n");
    return;
  }
  constexpr size_t kMostOfAKind = 10;
  std::map<DataFinding::Kind, size_t> seen;
  rows = {{"finding", "file", "detail"}};
  for (const DataFinding& f : r.findings) {
    if (++seen[f.kind] > kMostOfAKind) continue;
    std::string files = f.files.empty() ? "" : f.files[0];
    if (f.files.size() > 1) files += " = " + f.files[1];
    if (f.files.size() > 2) files += fmt::format(" and {} more", f.files.size() - 2);
    rows.push_back({name_of(f.kind), files, f.detail});
  }
  std::printf("%s\n", table(rows, 3).c_str());
  std::vector<std::string> sums;
  for (const auto& [kind, count] : seen) {
    sums.push_back(fmt::format("{} {}{}", name_of(kind), grouped(static_cast<int64_t>(count)),
                               count > kMostOfAKind ? fmt::format(" ({} shown)", kMostOfAKind) : ""));
  }
  std::printf("found: %s\n", fmt::format("{}", fmt::join(sums, ", ")).c_str());
}

int run_data(const Arguments& a) {
  if (a.threads < 0 || a.threads > 256) throw UserError("--threads: {}; expected 0 (all) to 256", a.threads);
  Progress progress;
  const std::atomic<int>& stop = install_stop_signals();
  const auto start = std::chrono::steady_clock::now();
  const DataReport report = check_data(
      a.path,
      {.threads = a.threads > 0 ? static_cast<int>(a.threads) : available_threads(),
       .progress =
           [&](int64_t done, int64_t total) {
             const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
             if (seconds < 2 || done == 0) return;
             const double rate = static_cast<double>(done) / seconds;
             progress.update(fmt::format("checking {}/{}  {:.0f} images/min  {} left", grouped(done), grouped(total),
                                         60 * rate, duration(static_cast<double>(total - done) / rate)));
           },
       .scan_progress =
           [&](int64_t files) { progress.update(fmt::format("looking for images: {} files", grouped(files))); },
       .stop = &stop});
  progress.clear();
  if (stop != 0 && report.checked < report.images) return 128 + stop;
  a.json ? print_json(report) : print_text(report);
  return static_cast<int>(report.findings.empty() ? ExitCode::ok : ExitCode::check_failed);
}

}  // namespace

Command add_data(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("data", "Look at a data set before training on it");
  verb->add_option("ACTION", a->action, "check: decode every image; find what is damaged, double or in the wrong place")
      ->required()
      ->check(CLI::IsMember({"check"}));
  verb->add_option("PATH", a->path, "what --data of resnet train takes")->required();
  verb->add_option("--threads", a->threads, "threads that decode; 0: all CPUs there are")->capture_default_str();
  verb->add_flag("--json", a->json, "print as JSON, with every finding");
  verb->footer(
      "Exits with 1 when something was found.\n"
      "Example: resnet data check photos");
  return [a] { return run_data(*a); };
}

}  // namespace resnet::cli

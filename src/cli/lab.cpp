#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "lab/experiment.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  LabConfig config;
  std::string experiment;
  bool json = false;
};

/// Of a table that is longer the middle is left out; the file has it.
constexpr size_t kMostRows = 40;

int list_experiments(bool as_json) {
  json list = json::array();
  std::vector<std::vector<std::string>> rows;
  for (const Experiment& experiment : all_experiments()) {
    list.push_back({{"experiment", experiment.name}, {"summary", experiment.summary}});
    rows.push_back({experiment.name, experiment.summary});
  }
  rows.push_back({"all", "every experiment, one after the other, with an index page"});
  std::printf("%s", as_json ? (list.dump() + "\n").c_str() : table(rows, 2).c_str());
  return 0;
}

/// The report's first table, its findings, and where the rest is.
void print_text(const Report& report, const std::vector<std::string>& files) {
  std::printf("%s\n%s\n\n", report.title.c_str(), report.claim.c_str());
  const ReportTable& shown = report.tables.front();
  std::vector<std::vector<std::string>> rows = {shown.header};
  const size_t cut = shown.rows.size() > kMostRows ? shown.rows.size() - kMostRows : 0;
  for (size_t i = 0; i < shown.rows.size(); ++i) {
    if (cut == 0 || i < kMostRows / 2 || i >= kMostRows / 2 + cut) {
      rows.push_back(shown.rows[i]);
    } else if (i == kMostRows / 2) {
      rows.push_back({fmt::format("({} rows more)", cut)});
    }
  }
  std::printf("%s\n", table(rows).c_str());
  for (const std::string& finding : report.findings) std::printf("%s\n", finding.c_str());
  std::printf("\nreport: %s\n", files.front().c_str());
  for (size_t i = 0; i < report.tables.size(); ++i) {
    std::printf("  %s: %s\n", report.tables[i].title.c_str(), files[1 + i].c_str());
  }
  std::printf("\n");
}

json to_json(const Report& report, const std::vector<std::string>& files) {
  json tables = json::object();
  for (const ReportTable& t : report.tables) tables[t.title] = {{"header", t.header}, {"rows", t.rows}};
  return {{"experiment", report.name},
          {"claim", report.claim},
          {"command", report.command},
          {"findings", report.findings},
          {"tables", tables},
          {"notes", report.notes},
          {"files", files}};
}

/// A setting that the experiment would not look at is refused. Of all experiments each takes what it knows.
void check_taken(const CLI::App& verb, const Experiment& experiment) {
  for (const std::string setting : {"depths", "batch-norm", "layers", "steps", "epochs", "seeds"}) {
    const auto& takes = experiment.takes;
    if (verb.count("--" + setting) == 0 || std::find(takes.begin(), takes.end(), setting) != takes.end()) continue;
    throw UserError("--{}: {} does not take it; of its own it takes --{}", setting, experiment.name,
                    fmt::join(takes, ", --"));
  }
}

int run_lab(const CLI::App& verb, const Arguments& a) {
  if (a.experiment.empty()) return list_experiments(a.json);
  std::vector<Experiment> chosen;
  if (a.experiment == "all") {
    chosen = all_experiments();
  } else {
    chosen.push_back(find_experiment(a.experiment));
    check_taken(verb, chosen.front());
  }
  check_before(a.config, chosen);
  // Hours of measuring must not end at a folder that takes no files.
  std::error_code error;
  std::filesystem::create_directories(a.config.output, error);
  if (error) throw io_error(a.config.output, "create the reports' folder", error.value());
  if (::access(a.config.output.c_str(), W_OK) != 0) throw io_error(a.config.output, "write into the folder", errno);
  Progress progress;
  LabObserver observer;
  observer.stop_signal = &install_stop_signals();
  observer.on_warning = [&](const std::string& text) { progress.print("resnet: warning: " + text); };
  std::vector<Report> reports;
  std::string index;
  json results = json::array();
  int code = 0;
  const bool several = chosen.size() > 1;
  for (size_t i = 0; i < chosen.size() && code < 128; ++i) {
    const std::string which =
        several ? fmt::format("{} ({}/{})", chosen[i].name, i + 1, chosen.size()) : chosen[i].name;
    observer.on_progress = [&](const std::string& what, double done, double left) {
      progress.update(fmt::format("{}  {:.0f} %  {}  {} left", which, 100 * done, what, duration(left)));
    };
    try {
      Report report = chosen[i].run(a.config, observer);
      const std::vector<std::string> files = write_report(a.config.output, report);
      progress.clear();
      if (a.json) {
        results.push_back(to_json(report, files));
      } else {
        print_text(report, files);
        std::fflush(stdout);
      }
      reports.push_back(std::move(report));
      if (several) index = write_report_index(a.config.output, reports);
    } catch (const Interrupted& interrupted) {
      progress.clear();
      progress.print(fmt::format("resnet: stopped; {} of {} reports are written", reports.size(), chosen.size()));
      code = 128 + interrupted.signal;
    } catch (const Error& e) {
      if (!several) throw;
      // The others can still be measured.
      progress.clear();
      progress.print(fmt::format("resnet: error: {}: {}", chosen[i].name, e.what()));
      code = static_cast<int>(e.code());
    }
  }
  if (!index.empty() && !a.json) std::printf("all reports: %s\n", index.c_str());
  if (a.json) std::printf("%s\n", results.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  return code;
}

}  // namespace

Command add_lab(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  LabConfig& c = arguments->config;
  CLI::App* verb = app.add_subcommand("lab", "Measure the lecture's claims and draw them; alone: list the experiments");
  verb->add_option("EXPERIMENT", arguments->experiment, "an experiment, or all");
  verb->add_flag("--quick", c.quick, "fewer steps, depths and seeds: all in minutes");
  verb->add_option("--output", c.output, "folder of the reports")->capture_default_str();
  verb->add_option("--depths", c.depths, "layers of the nets, separated by commas, e.g. 20,56")
      ->delimiter(',')
      ->allow_extra_args(false);
  verb->add_option("--batch-norm", c.batch_norm, "of gradient-flow and mlp: on, off or both")->capture_default_str();
  verb->add_option("--layers", c.layers, "of depth: layers of the net; default 1202");
  verb->add_option("--steps", c.steps, "training steps; default the experiment's own");
  verb->add_option("--epochs", c.epochs, "of degradation; default the experiment's own");
  verb->add_option("--seeds", c.seeds, "of degradation: runs of each net; default the experiment's own");
  verb->add_option("--seed", c.seed, "of initial weights and shuffling, the first one")->capture_default_str();
  verb->add_option("-b,--batch-size", c.batch_size, "images a step; default the experiment's own");
  verb->add_option("--limit", c.limit, "use the first N training images; default the experiment's own");
  verb->add_option("--data", c.data, "fashion-mnist, or a folder of idx files")->capture_default_str();
  verb->add_option("--image-size", c.image_size, "side of the input, pixels")->capture_default_str();
  verb->add_option("--threads", c.threads, "compute threads; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("--backend", c.backend, "cpu or reference")->capture_default_str();
  verb->add_flag("--json", arguments->json, "print the results as JSON");
  verb->footer("Example: resnet lab gradient-flow --depths 20,56\nEverything, in minutes: resnet lab all --quick");
  return [verb, arguments] { return run_lab(*verb, *arguments); };
}

}  // namespace resnet::cli

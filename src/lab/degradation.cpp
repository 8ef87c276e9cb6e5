#include "lab/degradation.h"

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "base/rng.h"
#include "lab/common.h"
#include "train/trainer.h"

namespace resnet {
namespace {

constexpr int64_t kNeedsWarmUp = 110;  // layers

/// He et al. 2015, Sec. 4.2, over fewer epochs: the rate falls tenfold after a half and three quarters of them. Very
/// deep nets begin at a tenth of the rate for 400 steps (the paper: until the training error is below 80 %, "about
/// 400") in whole epochs, at most a quarter of them; the decays stay where they are.
TrainConfig paper_recipe(const LabConfig& c, const std::string& model, int64_t depth, int64_t epochs, int64_t limit) {
  TrainConfig config;
  config.model = model;
  config.data = c.data;
  config.image_size = c.image_size;
  config.epochs = epochs;
  config.batch_size = c.batch_size > 0 ? c.batch_size : 128;
  config.lr = 0.1;
  config.momentum = 0.9;
  config.weight_decay = 1e-4;
  config.lr_scheduler = "multisteplr";
  config.random_crop_padding = 4;
  config.hflip_prob = 0.5;
  config.limit = limit;
  config.threads = c.threads;
  config.backend = c.backend;
  int64_t warmup = 0;
  if (depth >= kNeedsWarmUp) {
    const int64_t steps_per_epoch = (limit + config.batch_size - 1) / config.batch_size;
    warmup = std::min((400 + steps_per_epoch - 1) / steps_per_epoch, epochs / 4);
    config.lr_warmup_epochs = static_cast<double>(warmup);
    config.lr_warmup_decay = 0.1;
  }
  // Milestones count from the end of the warm-up.
  const int64_t first = std::max<int64_t>(1, epochs / 2);
  config.lr_milestones = {first - warmup, std::max(first + 1, epochs * 3 / 4) - warmup};
  return config;
}

std::string schedule(const TrainConfig& config) {
  const auto warmup = static_cast<int64_t>(config.lr_warmup_epochs);
  std::string text = warmup > 0 ? fmt::format("rate 0.01 for {} epochs, then 0.1", warmup) : "rate 0.1";
  for (const int64_t milestone : config.lr_milestones) {
    if (milestone + warmup < config.epochs) text += fmt::format(", tenfold less after epoch {}", milestone + warmup);
  }
  return text;
}

/// Where the run of a configuration lies: another configuration is another folder, so that what is there can be
/// resumed.
std::string run_folder(const std::string& output, const TrainConfig& config) {
  const std::string text = to_toml(config);
  const std::string_view settings = std::string_view(text).substr(text.find('\n'));  // after the comment
  return fmt::format("{}/runs/{}-seed{}-{:08x}", output, config.model, config.seed,
                     static_cast<uint32_t>(hash_text(settings)));
}

struct Runs {
  Net net;
  std::string schedule = {};
  std::vector<std::vector<EpochMetrics>> seeds = {};  ///< of the runs that came to their end
  int64_t diverged = 0;                               ///< runs that did not
};

struct Spread {
  double mean = 0, low = 0, high = 0;
};

Spread spread_of(const Runs& runs, size_t epoch, double EpochMetrics::*top1) {
  Spread s{0, 1e9, -1e9};
  for (const auto& metrics : runs.seeds) {
    const double error = 100 * (1 - metrics[epoch].*top1);
    s.mean += error / static_cast<double>(runs.seeds.size());
    s.low = std::min(s.low, error);
    s.high = std::max(s.high, error);
  }
  return s;
}

Series error_curve(const Runs& runs, double EpochMetrics::*top1, int style) {
  Series s{runs.net.name(), {}, {}, {}, {}, style};
  for (size_t epoch = 0; !runs.seeds.empty() && epoch < runs.seeds[0].size(); ++epoch) {
    const Spread error = spread_of(runs, epoch, top1);
    s.x.push_back(static_cast<double>(epoch + 1));
    s.y.push_back(error.mean);
    if (runs.seeds.size() < 2) continue;
    s.low.push_back(error.low);
    s.high.push_back(error.high);
  }
  return s;
}

/// The error after the last epoch.
Spread last_error(const Runs& runs, double EpochMetrics::*top1) {
  return spread_of(runs, runs.seeds[0].size() - 1, top1);
}

std::string last_error_cell(const Runs& runs, double EpochMetrics::*top1) {
  if (runs.seeds.empty()) return "-";
  const Spread s = last_error(runs, top1);
  return runs.seeds.size() > 1 ? fmt::format("{:.2f} ({:.2f} to {:.2f})", s.mean, s.low, s.high)
                               : fmt::format("{:.2f}", s.mean);
}

/// How `b` ends beside `a`, in percent of training error: "lower", and whether the seeds let us say so.
std::string comparison(const Runs& a, const Runs& b) {
  if (a.seeds.empty() || b.seeds.empty()) return "not comparable: no run of one of them came to its end";
  const Spread x = last_error(a, &EpochMetrics::train_top1), y = last_error(b, &EpochMetrics::train_top1);
  const std::string how = fmt::format("{:.2f} % and {:.2f} %, {}", x.mean, y.mean,
                                      y.mean > x.mean   ? "higher"
                                      : y.mean < x.mean ? "lower"
                                                        : "the same");
  if (a.seeds.size() < 2 || b.seeds.size() < 2) return how + " (one seed: no spread is known)";
  const bool apart = y.low > x.high || y.high < x.low;
  return how + (apart ? " for every seed" : ", but the seeds' ranges overlap");
}

}  // namespace

Report degradation(const LabConfig& c, const LabObserver& observer) {
  const std::vector<int64_t> depths = !c.depths.empty() ? c.depths : std::vector<int64_t>{20, 56};
  const int64_t seeds = given_or(c.seeds, c, 3, 1);
  const int64_t epochs = given_or(c.epochs, c, 8, 2);
  const int64_t count = load_dataset(c.data, Split::train).count;
  const int64_t limit = std::min(given_or(c.limit, c, 10000, 1500), count);
  const int64_t tested = load_dataset(c.data, Split::test).count;
  // In layers times images; a forward pass alone is a third of a step.
  constexpr double kForward = 1.0 / 3;
  const double epoch_images = static_cast<double>(limit) + kForward * static_cast<double>(tested);
  double total = 0;
  for (const int64_t depth : depths) total += static_cast<double>(depth);
  Work work(observer, total * 2 * static_cast<double>(seeds * epochs) * epoch_images);

  std::vector<Runs> all;
  size_t peak = 0;
  double seconds = 0;  // of all runs, what earlier calls of the experiment did included
  for (const Net& net : pairs_of_nets(depths)) {
    const auto layers = static_cast<double>(net.depth);
    Runs runs{net};
    for (int64_t seed = c.seed; seed < c.seed + seeds; ++seed) {
      TrainRequest request;
      request.config = paper_recipe(c, cifar_name(net.kind, net.depth), net.depth, epochs, limit);
      request.config.seed = seed;
      runs.schedule = schedule(request.config);
      request.output = run_folder(c.output, request.config);
      std::error_code error;
      request.resume = std::filesystem::exists(request.output + "/config.toml", error);
      request.stop_signal = observer.stop_signal;
      const std::string name = fmt::format("{} seed {}", net.name(), seed);
      double left = layers * static_cast<double>(epochs) * epoch_images;  // of this run's work
      TrainObserver trained;
      trained.on_plan = [&](const TrainObserver::Planned& p) {
        const double before = left * static_cast<double>(p.start_step) / static_cast<double>(p.steps);
        left -= before;
        work.skip(before);
      };
      const auto tell = [&](double images, const std::string& what) {
        left -= layers * images;
        work.tell(layers * images, what);
      };
      trained.on_step = [&](const TrainObserver::Stepped& s) {
        tell(static_cast<double>(request.config.batch_size),
             fmt::format("{} epoch {}/{} loss {:.3f}", name, s.epoch, s.epochs, s.mean_loss));
      };
      int64_t evaluated = 0;
      trained.on_evaluate = [&](int64_t done, int64_t) {
        if (done < evaluated) evaluated = 0;  // the next epoch's
        tell(kForward * static_cast<double>(done - evaluated), name + " evaluation");
        evaluated = done;
      };
      trained.on_warning = observer.on_warning;
      work.advance(0, name);
      try {
        const TrainResult result = train(request, trained);
        if (result.stopped_by) throw Interrupted{result.stopped_by};
        peak = std::max(peak, result.peak_bytes);
        for (const EpochMetrics& m : result.metrics) seconds += m.seconds;
        runs.seeds.push_back(result.metrics);
      } catch (const Error& e) {
        if (e.code() != ExitCode::diverged) throw;
        ++runs.diverged;
      }
      work.skip(left);
    }
    all.push_back(std::move(runs));
  }

  Report report;
  report.name = "degradation";
  report.title = "Do more layers help?";
  report.claim = "Deeper plain nets end with a higher training error than shallower ones; deeper residual nets do not.";
  report.command = command_of(report.name, c);
  ReportTable finals{
      "Errors after the last epoch", {"net", "seeds", "diverged", "training error (%)", "test error (%)"}, {}};
  ReportTable epochs_table{
      "Epochs", {"net", "seed", "epoch", "train_loss", "train_error", "test_loss", "test_error"}, {}};
  Chart train_chart{.title = "training error", .x_label = "epoch", .y_label = "error (%)", .series = {}};
  Chart test_chart{.title = "test error", .x_label = "epoch", .y_label = "error (%)", .series = {}};
  for (size_t i = 0; i < all.size(); ++i) {
    const Runs& runs = all[i];
    const std::string name = runs.net.name();
    const int style = style_of(runs.net.kind, i / 2);
    finals.rows.push_back({name, std::to_string(seeds), std::to_string(runs.diverged),
                           last_error_cell(runs, &EpochMetrics::train_top1),
                           last_error_cell(runs, &EpochMetrics::eval_top1)});
    train_chart.series.push_back(error_curve(runs, &EpochMetrics::train_top1, style));
    test_chart.series.push_back(error_curve(runs, &EpochMetrics::eval_top1, style));
    for (size_t seed = 0; seed < runs.seeds.size(); ++seed) {
      for (const EpochMetrics& m : runs.seeds[seed]) {
        epochs_table.rows.push_back(
            {name, std::to_string(c.seed + static_cast<int64_t>(seed)), std::to_string(m.epoch),
             fmt::format("{:.5g}", m.train_loss), fmt::format("{:.5g}", 100 * (1 - m.train_top1)),
             fmt::format("{:.5g}", m.eval_loss), fmt::format("{:.5g}", 100 * (1 - m.eval_top1))});
      }
    }
  }
  report.tables = {finals, epochs_table};
  report.figures = {{"",
                     seeds > 1 ? "Lines: mean over the seeds; bands: smallest to largest." : "One seed.",
                     {train_chart, test_chart}}};
  for (size_t i = 2; i < all.size(); ++i) {
    const Runs &shallow = all[i - 2], &deep = all[i];
    report.findings.push_back(fmt::format("Training error of the {} nets of {} and {} layers: {}.",
                                          deep.net.kind == Kind::plain ? "plain" : "residual", shallow.net.depth,
                                          deep.net.depth, comparison(shallow, deep)));
  }
  for (size_t i = 0; i < all.size(); i += 2) {
    report.findings.push_back(fmt::format("Training error at {} layers, plain and residual: {}.", all[i].net.depth,
                                          comparison(all[i], all[i + 1])));
  }
  for (const Runs& runs : all) {
    if (runs.diverged == 0) continue;
    report.findings.push_back(
        fmt::format("{}: {} of {} runs diverged (three losses in a row were not finite) and are "
                    "left out.",
                    runs.net.name(), runs.diverged, seeds));
  }
  report.notes = notes_of(c, seconds, peak);
  report.notes.push_back(fmt::format(
      "the paper's recipe over {} epochs of the first {} training images: batches of {}, momentum 0.9, weight decay "
      "1e-4, random crops with 4 pixels of padding, flips; training error as met during the epoch",
      epochs, limit, c.batch_size > 0 ? c.batch_size : 128));
  for (size_t i = 0; i < all.size(); i += 2) {
    report.notes.push_back(fmt::format("{} layers: {}", all[i].net.depth, all[i].schedule));
  }
  return report;
}

}  // namespace resnet

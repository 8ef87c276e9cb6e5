#include "lab/degradation.h"

#include <algorithm>
#include <filesystem>

#include "lab/common.h"
#include "train/trainer.h"

namespace resnet {
namespace {

/// He et al. 2015, Sec. 4.2, over fewer epochs: the rate falls tenfold after a half and three quarters of them. Very
/// deep nets warm up at a tenth of the rate for 400 steps (they have it until the training error is below 80 %, "about
/// 400") or a quarter of the epochs, whichever is shorter.
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
  config.lr_milestones = {std::max<int64_t>(1, epochs / 2), std::max<int64_t>(2, epochs * 3 / 4)};
  config.random_crop_padding = 4;
  config.hflip_prob = 0.5;
  config.limit = limit;
  config.threads = c.threads;
  config.backend = c.backend;
  constexpr int64_t kNeedsWarmUp = 110;
  if (depth >= kNeedsWarmUp) {
    config.lr_warmup_epochs = std::min(400.0 * static_cast<double>(config.batch_size) / static_cast<double>(limit),
                                       0.25 * static_cast<double>(epochs));
    config.lr_warmup_decay = 0.1;
  }
  return config;
}

struct Runs {
  Kind kind;
  int64_t depth;
  std::vector<std::vector<EpochMetrics>> seeds;
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

Series error_curve(const Runs& runs, double EpochMetrics::*top1) {
  Series s{short_name(runs.kind, runs.depth), {}, {}, {}, {}};
  for (size_t epoch = 0; epoch < runs.seeds[0].size(); ++epoch) {
    const Spread error = spread_of(runs, epoch, top1);
    s.x.push_back(static_cast<double>(epoch + 1));
    s.y.push_back(error.mean);
    if (runs.seeds.size() < 2) continue;
    s.low.push_back(error.low);
    s.high.push_back(error.high);
  }
  return s;
}

std::string spread_cell(const Spread& s, size_t seeds) {
  return seeds > 1 ? fmt::format("{:.2f} ({:.2f} to {:.2f})", s.mean, s.low, s.high) : fmt::format("{:.2f}", s.mean);
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
  for (const Net& net : pairs_of_nets(depths)) {
    const int64_t depth = net.depth;
    Runs runs{net.kind, depth, {}};
    for (int64_t seed = c.seed; seed < c.seed + seeds; ++seed) {
      TrainRequest request;
      request.config = paper_recipe(c, cifar_name(net.kind, depth), depth, epochs, limit);
      request.config.seed = seed;
      request.output = fmt::format("{}/runs/{}-{}x{}-{}epochs-seed{}", c.output, request.config.model, limit,
                                   request.config.batch_size, epochs, seed);
      std::error_code error;
      request.resume = std::filesystem::exists(request.output + "/config.toml", error);
      request.stop_signal = observer.stop_signal;
      const std::string name = fmt::format("{} seed {}", net.name(), seed);
      TrainObserver trained;
      trained.on_plan = [&](const TrainObserver::Planned& p) {
        const double done = static_cast<double>(p.start_step) / static_cast<double>(p.steps);
        work.tell(done * static_cast<double>(epochs * depth) * epoch_images, name);
      };
      int64_t evaluated = 0;
      trained.on_evaluate = [&](int64_t done, int64_t) {
        if (done < evaluated) evaluated = 0;  // the next epoch's
        work.tell(kForward * static_cast<double>(depth * (done - evaluated)), name + " evaluation");
        evaluated = done;
      };
      trained.on_step = [&](const TrainObserver::Stepped& s) {
        work.tell(static_cast<double>(depth * request.config.batch_size),
                  fmt::format("{} epoch {}/{} loss {:.3f}", name, s.epoch, s.epochs, s.mean_loss));
      };
      trained.on_warning = observer.on_warning;
      work.advance(0, name);
      const TrainResult result = train(request, trained);
      if (result.stopped_by) throw Interrupted{result.stopped_by};
      peak = std::max(peak, result.peak_bytes);
      runs.seeds.push_back(result.metrics);
    }
    all.push_back(std::move(runs));
  }

  Report report;
  report.name = "degradation";
  report.title = "Do more layers help?";
  report.claim = "Deeper plain nets end with a higher training error than shallower ones; deeper residual nets do not.";
  report.command = command_of(report.name, c);
  ReportTable finals{"Errors after the last epoch", {"net", "seeds", "training error (%)", "test error (%)"}, {}};
  ReportTable epochs_table{
      "Epochs", {"net", "seed", "epoch", "train_loss", "train_error", "test_loss", "test_error"}, {}};
  Chart train_chart{.title = "training error", .x_label = "epoch", .y_label = "error (%)", .series = {}};
  Chart test_chart{.title = "test error", .x_label = "epoch", .y_label = "error (%)", .series = {}};
  const auto last_error = [&](const Runs& runs, double EpochMetrics::*top1) {
    return spread_of(runs, runs.seeds[0].size() - 1, top1);
  };
  for (const Runs& runs : all) {
    const std::string name = short_name(runs.kind, runs.depth);
    finals.rows.push_back({name, std::to_string(runs.seeds.size()),
                           spread_cell(last_error(runs, &EpochMetrics::train_top1), runs.seeds.size()),
                           spread_cell(last_error(runs, &EpochMetrics::eval_top1), runs.seeds.size())});
    train_chart.series.push_back(error_curve(runs, &EpochMetrics::train_top1));
    test_chart.series.push_back(error_curve(runs, &EpochMetrics::eval_top1));
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
  for (const Kind kind : {Kind::plain, Kind::residual}) {
    std::vector<const Runs*> of_kind;
    for (const Runs& runs : all) {
      if (runs.kind == kind) of_kind.push_back(&runs);
    }
    for (size_t i = 1; i < of_kind.size(); ++i) {
      const Spread shallow = last_error(*of_kind[i - 1], &EpochMetrics::train_top1);
      const Spread deep = last_error(*of_kind[i], &EpochMetrics::train_top1);
      const bool apart = deep.low > shallow.high || deep.high < shallow.low;
      report.findings.push_back(
          fmt::format("{} nets: from {} to {} layers the training error goes from {:.2f} % to {:.2f} %, {}{}.",
                      kind == Kind::plain ? "Plain" : "Residual", of_kind[i - 1]->depth, of_kind[i]->depth,
                      shallow.mean, deep.mean, deep.mean > shallow.mean ? "up" : "down",
                      seeds < 2 ? " (one seed: no spread is known)"
                      : apart   ? ""
                                : ", but the seeds' ranges overlap"));
    }
  }
  for (size_t i = 0; i + 1 < all.size(); i += 2) {
    const Spread plain = last_error(all[i], &EpochMetrics::train_top1);
    const Spread residual = last_error(all[i + 1], &EpochMetrics::train_top1);
    report.findings.push_back(
        fmt::format("At {} layers the residual net's training error is {:.2f} % against the plain one's {:.2f} %: {}.",
                    all[i].depth, residual.mean, plain.mean,
                    residual.mean < plain.mean ? "lower, as claimed" : "not lower, the claim does not show here"));
  }
  // Of all runs, those that earlier calls of the experiment left too.
  double seconds = 0;
  for (const Runs& runs : all) {
    for (const auto& metrics : runs.seeds) {
      for (const EpochMetrics& m : metrics) seconds += m.seconds;
    }
  }
  report.notes = notes_of(c, seconds, peak);
  report.notes.push_back(
      fmt::format("the paper's recipe over {} epochs of the first {} training images: batches of {}, rate 0.1 falling "
                  "tenfold after epochs {} and {}, "
                  "momentum 0.9, weight decay 1e-4, random crops with 4 pixels of padding, flips; training error as "
                  "met during the epoch",
                  epochs, limit, c.batch_size > 0 ? c.batch_size : 128, std::max<int64_t>(1, epochs / 2),
                  std::max<int64_t>(2, epochs * 3 / 4)));
  return report;
}

}  // namespace resnet

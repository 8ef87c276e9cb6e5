#include "lab/gradient_flow.h"

#include <algorithm>
#include <cmath>

#include "lab/common.h"
#include "lab/probe.h"

namespace resnet {
namespace {

/// Deeper nets are measured at initialisation only, unless steps are asked for.
constexpr int64_t kDeepestTrained = 200;

struct Measurement {
  Kind kind;
  int64_t depth;
  bool batch_norm;
  int64_t step;
  LayerGradients gradients;
  size_t memory_bytes;
  double seconds;

  // The last layer is the classifier; the one before it is the last of the kind that is repeated.
  const LayerGradient& first() const { return gradients.layers.front(); }
  const LayerGradient& last() const { return gradients.layers[gradients.layers.size() - 2]; }
  double ratio() const { return first().weight / last().weight; }
};

std::string when(int64_t step) { return step == 0 ? "at initialisation" : fmt::format("after {} steps", step); }

const char* with_norm(bool batch_norm) { return batch_norm ? "with batch norm" : "without batch norm"; }

Series curve_of(const Measurement& m) {
  const std::string step = m.step == 0 ? "start" : fmt::format("+{}", m.step);
  Series s{fmt::format("{} {}", m.kind == Kind::plain ? "plain" : "residual", step), {}, {}, {}, {}};
  const auto layers = static_cast<double>(m.gradients.layers.size() - 1);
  for (size_t i = 0; i < m.gradients.layers.size(); ++i) {
    s.x.push_back(static_cast<double>(i) / layers);
    s.y.push_back(m.gradients.layers[i].weight);
  }
  return s;
}

std::string comparison(const Measurement& plain, const Measurement& residual) {
  const std::string where = fmt::format("Depth {}, {}, {}", plain.depth, with_norm(plain.batch_norm), when(plain.step));
  const std::string ratios =
      fmt::format("first layer's gradient over the last's is {} in the plain net, {} in the residual one",
                  number_cell(plain.ratio()), number_cell(residual.ratio()));
  if (!std::isfinite(plain.ratio()) || !std::isfinite(residual.ratio())) return where + ": " + ratios + ".";
  // How far each is from 1, where every layer would learn as fast.
  const double plain_decades = std::abs(std::log10(std::max(plain.ratio(), 1e-300)));
  const double residual_decades = std::abs(std::log10(std::max(residual.ratio(), 1e-300)));
  const char* verdict = plain.ratio() < residual.ratio() ? "the plain net's gradient vanishes more"
                        : plain_decades > residual_decades
                            ? "the plain net's gradient does not vanish here, it grows towards the input"
                            : "the claim does not show here";
  return fmt::format("{}: {}; {}.", where, ratios, verdict);
}

}  // namespace

Report gradient_flow(const LabConfig& c, const LabObserver& observer) {
  const std::vector<int64_t> depths = !c.depths.empty() ? c.depths
                                      : c.quick         ? std::vector<int64_t>{20, 56}
                                                        : std::vector<int64_t>{20, 56, 110, 1202};
  const int64_t steps = given_or(c.steps, c, 30, 10);
  const int64_t batch = given_or(c.batch_size, c, 32, 32);
  std::vector<bool> norms;
  if (c.batch_norm != "on") norms.push_back(false);
  if (c.batch_norm != "off") norms.push_back(true);
  const auto trained = [&](int64_t depth) { return depth <= kDeepestTrained || c.steps > 0; };

  // In layers run forward and back; making the programs costs a few steps' time.
  constexpr double kMaking = 4;
  double total = 0;
  for (const int64_t depth : depths) {
    total += static_cast<double>(depth) * (kMaking + (trained(depth) ? kMaking + static_cast<double>(steps) : 0));
  }
  Work work(observer, total * 2 * static_cast<double>(norms.size()));

  const Dataset data = load_dataset(c.data, Split::train);
  std::vector<Measurement> all;
  size_t peak = 0;
  for (const bool batch_norm : norms) {
    for (const int64_t depth : depths) {
      for (const Kind kind : {Kind::plain, Kind::residual}) {
        const double start = work.seconds();
        const std::string name = fmt::format("{} {}", short_name(kind, depth), with_norm(batch_norm));
        SpecimenOptions options = specimen_options(c, cifar_name(kind, depth), batch);
        options.model_options.batch_norm = batch_norm;
        // Kaiming's scale is chosen so that a plain net's gradients keep their size; what the claim speaks of shows
        // with the scale that frameworks start from.
        if (!batch_norm) options.model_options.init = WeightInit::pytorch;
        work.advance(0, name);
        Specimen net(data, options);
        LayerProbe probe(net);
        const auto measure = [&](int64_t step) {
          LayerGradients gradients = probe.measure();
          peak = std::max(peak, net.memory_bytes());
          all.push_back(
              {kind, depth, batch_norm, step, std::move(gradients), net.memory_bytes(), work.seconds() - start});
        };
        measure(0);
        work.advance(kMaking * static_cast<double>(depth), name);
        if (!trained(depth)) continue;
        const double lr = batch_norm ? 0.1 : 0.01;
        for (int64_t i = 0; i < steps; ++i) {
          net.train_step(lr);
          work.advance(static_cast<double>(depth) * (i == 0 ? 1 + kMaking : 1), name);
        }
        measure(steps);
      }
    }
  }

  Report report;
  report.name = "gradient-flow";
  report.title = "Does the gradient reach the first layer?";
  report.claim =
      "In a plain net the gradient is a product of many small numbers and vanishes on its way to the input; shortcuts "
      "add "
      "a short path on which it does not.";
  report.command = command_of(report.name, c);
  ReportTable ratios{
      "First layer over last",
      {"net", "batch norm", "measured", "loss", "first layer", "last layer", "first / last", "memory (GB)", "seconds"},
      {}};
  ReportTable layers{"Layers", {"net", "batch norm", "step", "layer", "name", "norm by weight", "norm by output"}, {}};
  for (const Measurement& m : all) {
    ratios.rows.push_back({short_name(m.kind, m.depth), m.batch_norm ? "on" : "off", when(m.step),
                           number_cell(m.gradients.loss), number_cell(m.first().weight), number_cell(m.last().weight),
                           number_cell(m.ratio()), fmt::format("{:.2f}", static_cast<double>(m.memory_bytes) / 1e9),
                           fmt::format("{:.1f}", m.seconds)});
    for (size_t i = 0; i < m.gradients.layers.size(); ++i) {
      const LayerGradient& g = m.gradients.layers[i];
      layers.rows.push_back({short_name(m.kind, m.depth), m.batch_norm ? "on" : "off", std::to_string(m.step),
                             std::to_string(i + 1), g.layer, fmt::format("{:.6g}", g.weight),
                             fmt::format("{:.6g}", g.output)});
    }
  }
  report.tables = {ratios, layers};
  for (const bool batch_norm : norms) {
    ReportFigure figure{
        batch_norm ? "with-batch-norm" : "without-batch-norm",
        fmt::format("Norm of the loss's gradient by each layer's weight, {}, at initialisation (start) and "
                    "after {} steps.",
                    with_norm(batch_norm), steps),
        {}};
    for (const int64_t depth : depths) {
      Chart chart{.title = fmt::format("{} layers, {}", depth, with_norm(batch_norm)),
                  .x_label = "place in the net (0: input, 1: output)",
                  .y_label = "gradient norm",
                  .series = {},
                  .log_y = true};
      for (const int64_t step : {int64_t{0}, steps}) {
        for (const Measurement& m : all) {
          if (m.batch_norm == batch_norm && m.depth == depth && m.step == step) chart.series.push_back(curve_of(m));
        }
      }
      figure.panels.push_back(chart);
    }
    report.figures.push_back(figure);
  }
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t k = i + 1; k < all.size(); ++k) {
      const Measurement &a = all[i], &b = all[k];
      if (a.kind == Kind::plain && b.kind == Kind::residual && a.depth == b.depth && a.step == b.step &&
          a.batch_norm == b.batch_norm) {
        report.findings.push_back(comparison(a, b));
      }
    }
  }
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(
      fmt::format("batches of {}; SGD with momentum 0.9, weight decay 1e-4, rate 0.1 with batch norm and 0.01 without; "
                  "without batch norm weights start as U(-1/sqrt(fan in), 1/sqrt(fan in))",
                  batch));
  return report;
}

}  // namespace resnet

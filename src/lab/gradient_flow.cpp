#include "lab/gradient_flow.h"

#include <algorithm>

#include "lab/common.h"
#include "lab/judgement.h"
#include "lab/probe.h"

namespace resnet {
namespace {

/// Deeper nets are measured at initialisation only, unless steps are asked for.
constexpr int64_t kDeepestTrained = 200;

struct Measurement {
  int64_t step;
  LayerGradients gradients;
  size_t memory_bytes;
  double seconds;  ///< since work on the net began
};

struct Course {
  Net net;
  std::vector<Measurement> measured;
};

std::string when(int64_t step) { return step == 0 ? "at initialisation" : fmt::format("after {} steps", step); }

std::string comparison(const Net& net, const Measurement& plain, const Measurement& residual) {
  const double p = plain.gradients.first_over_last(), r = residual.gradients.first_over_last();
  return fmt::format(
      "Depth {}, {}, {}: first layer's gradient over the last's is {} in the plain net, {} in the residual one; {}.",
      net.depth, with_batch_norm(net.batch_norm), when(plain.step), number_cell(p), number_cell(r),
      judge_gradients(p, r));
}

}  // namespace

Report gradient_flow(const LabConfig& c, const LabObserver& observer) {
  const std::vector<int64_t> depths = !c.depths.empty() ? c.depths
                                      : c.quick         ? std::vector<int64_t>{20, 56}
                                                        : std::vector<int64_t>{20, 56, 110, 1202};
  const int64_t steps = given_or(c.steps, c, 30, 10);
  const int64_t batch = given_or(c.batch_size, c, 32, 32);
  const auto trained = [&](int64_t depth) { return depth <= kDeepestTrained || c.steps > 0; };
  const std::vector<Net> nets = pairs_of_nets(depths, c.batch_norm);

  // In layers run forward and back; making the programs costs a few steps' time.
  constexpr double kMaking = 4;
  double total = 0;
  for (const Net& net : nets) {
    total +=
        static_cast<double>(net.depth) * (kMaking + (trained(net.depth) ? kMaking + static_cast<double>(steps) : 0));
  }
  Work work(observer, total);

  const Dataset data = load_dataset(c.data, Split::train);
  std::vector<Course> courses;
  size_t peak = 0;
  for (const Net& net : nets) {
    const double start = work.seconds();
    const auto layers = static_cast<double>(net.depth);
    work.advance(0, net.name());
    Specimen specimen(data, specimen_options(c, cifar_name(net.kind, net.depth), batch, net.batch_norm));
    LayerProbe probe(specimen);
    Course course{net, {}};
    const auto measure = [&](int64_t step) {
      LayerGradients gradients = probe.measure();
      course.measured.push_back({step, std::move(gradients), specimen.memory_bytes(), work.seconds() - start});
    };
    measure(0);
    work.advance(kMaking * layers, net.name());
    if (trained(net.depth)) {
      for (int64_t i = 0; i < steps; ++i) {
        specimen.train_step(net.batch_norm ? 0.1 : 0.01);
        work.advance(layers * (i == 0 ? 1 + kMaking : 1), net.name());
      }
      measure(steps);
    }
    tell_warnings(specimen, observer);
    peak = std::max(peak, specimen.memory_bytes());
    courses.push_back(std::move(course));
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
  for (const auto& [net, measured] : courses) {
    const std::string name = short_name(net.kind, net.depth), norm = net.batch_norm ? "on" : "off";
    for (const Measurement& m : measured) {
      ratios.rows.push_back(
          {name, norm, when(m.step), number_cell(m.gradients.loss), number_cell(m.gradients.first().weight),
           number_cell(m.gradients.last().weight), number_cell(m.gradients.first_over_last()),
           fmt::format("{:.2f}", static_cast<double>(m.memory_bytes) / 1e9), fmt::format("{:.1f}", m.seconds)});
      for (size_t i = 0; i < m.gradients.layers.size(); ++i) {
        const LayerGradient& g = m.gradients.layers[i];
        layers.rows.push_back({name, norm, std::to_string(m.step), std::to_string(i + 1), g.layer,
                               fmt::format("{:.6g}", g.weight), fmt::format("{:.6g}", g.output)});
      }
    }
  }
  report.tables = {ratios, layers};
  // Nets come in pairs, plain first; a figure for each setting of batch norm, a panel for each depth.
  for (size_t i = 0; i < courses.size(); i += 2) {
    const auto& [net, plain] = courses[i];
    const std::vector<Measurement>& residual = courses[i + 1].measured;
    if (i == 0 || net.batch_norm != courses[i - 1].net.batch_norm) {
      report.figures.push_back({net.batch_norm ? "with-batch-norm" : "without-batch-norm",
                                fmt::format("Norm of the loss's gradient by each layer's weight, {}: at initialisation "
                                            "(start) and, where the net was trained, after {} steps. A gradient that "
                                            "is 0 in f32 has no place on the axis.",
                                            with_batch_norm(net.batch_norm), steps),
                                {}});
    }
    Chart chart{.title = fmt::format("{} layers, {}", net.depth, with_batch_norm(net.batch_norm)),
                .x_label = "place in the net (0: input, 1: output)",
                .y_label = "gradient norm",
                .series = {},
                .log_y = true};
    for (size_t k = 0; k < plain.size(); ++k) {
      const std::string step = plain[k].step == 0 ? "start" : fmt::format("+{}", plain[k].step);
      chart.series.push_back(gradient_curve("plain " + step, plain[k].gradients, style_of(Kind::plain, k)));
      chart.series.push_back(gradient_curve("residual " + step, residual[k].gradients, style_of(Kind::residual, k)));
      report.findings.push_back(comparison(net, plain[k], residual[k]));
    }
    report.figures.back().panels.push_back(chart);
  }
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(
      fmt::format("batches of {}; {}, rate 0.1 with batch norm and 0.01 without; gradients of one batch, the file's "
                  "first images",
                  batch, optimizer_note({})));
  report.notes.push_back(without_norm_note());
  return report;
}

}  // namespace resnet

#include "lab/mlp.h"

#include <algorithm>

#include "lab/common.h"
#include "lab/judgement.h"
#include "lab/probe.h"

namespace resnet {
namespace {

struct Course {
  Net net;
  LayerGradients gradients;  ///< at initialisation
  std::vector<double> losses;
};

}  // namespace

Report mlp(const LabConfig& c, const LabObserver& observer) {
  const std::vector<int64_t> depths = !c.depths.empty() ? c.depths : std::vector<int64_t>{20, 56};
  const int64_t steps = given_or(c.steps, c, 1000, 150);
  const int64_t batch = given_or(c.batch_size, c, 128, 64);
  const std::vector<Net> nets = pairs_of_nets(depths, c.batch_norm);
  constexpr double kMaking = 20;
  double total = 0;
  for (const Net& net : nets) total += static_cast<double>(net.depth) * (static_cast<double>(steps) + kMaking);
  Work work(observer, total);
  const Dataset data = load_dataset(c.data, Split::train);
  std::vector<Course> courses;
  size_t peak = 0;
  for (const Net& net : nets) {
    const auto layers = static_cast<double>(net.depth);
    work.advance(0, net.name());
    Specimen specimen(data, specimen_options(c, mlp_name(net.kind, net.depth), batch, net.batch_norm));
    Course course{net, LayerProbe(specimen).measure(), {}};
    work.advance(kMaking * layers, net.name());
    for (int64_t i = 0; i < steps; ++i) {
      course.losses.push_back(specimen.train_step(net.batch_norm ? 0.05 : 0.01).loss);
      work.advance(layers, net.name());
    }
    tell_warnings(specimen, observer);
    peak = std::max(peak, specimen.memory_bytes());
    courses.push_back(std::move(course));
  }

  Report report;
  report.name = "mlp";
  report.title = "Do shortcuts help fully connected nets too?";
  report.claim = "Residual connections are not about images: fully connected nets gain from them alike.";
  report.command = command_of(report.name, c);
  const size_t window = static_cast<size_t>(std::max<int64_t>(1, steps / 20));
  ReportTable table{
      "Nets", {"net", "batch norm", "first / last gradient", "loss, first steps", "loss, last steps"}, {}};
  ReportTable layers{"Layers", {"net", "batch norm", "layer", "name", "norm by weight"}, {}};
  ReportTable steps_table{"Steps", {"net", "batch norm", "step", "loss"}, {}};
  for (size_t i = 0; i < courses.size(); ++i) {
    const auto& [net, gradients, losses] = courses[i];
    const std::string name = short_name(net.kind, net.depth), norm = net.batch_norm ? "on" : "off";
    if (i == 0 || net.batch_norm != courses[i - 1].net.batch_norm) {
      const char* with = with_batch_norm(net.batch_norm);
      report.figures.push_back({net.batch_norm ? "with-batch-norm" : "without-batch-norm",
                                fmt::format("Fully connected nets {}.", with),
                                {{.title = fmt::format("gradient at initialisation, {}", with),
                                  .x_label = "place in the net (0: input, 1: output)",
                                  .y_label = "gradient norm",
                                  .series = {},
                                  .log_y = true},
                                 {.title = fmt::format("training loss, {}", with),
                                  .x_label = "step",
                                  .y_label = fmt::format("cross-entropy, mean of {} steps", window),
                                  .series = {}}}});
    }
    const std::vector<double> curve = smoothed(losses, window);
    const int style = style_of(net.kind, i % (2 * depths.size()) / 2);  // the depth's number
    report.figures.back().panels[0].series.push_back(gradient_curve(name, gradients, style));
    report.figures.back().panels[1].series.push_back({name, count_from(1, curve.size()), curve, {}, {}, style});
    const double early = curve[std::min(window, curve.size()) - 1];
    table.rows.push_back(
        {name, norm, number_cell(gradients.first_over_last()), number_cell(early), number_cell(curve.back())});
    for (size_t k = 0; k < gradients.layers.size(); ++k) {
      layers.rows.push_back({name, norm, std::to_string(k + 1), gradients.layers[k].layer,
                             fmt::format("{:.6g}", gradients.layers[k].weight)});
    }
    for (size_t k = 0; k < losses.size(); ++k) {
      steps_table.rows.push_back({name, norm, std::to_string(k + 1), fmt::format("{:.5g}", losses[k])});
    }
  }
  for (size_t i = 0; i + 1 < courses.size(); i += 2) {
    const Course &plain = courses[i], &residual = courses[i + 1];
    const double p = plain.gradients.first_over_last(), r = residual.gradients.first_over_last();
    report.findings.push_back(fmt::format(
        "Depth {}, {}: first layer's gradient over the last's is {} in the plain net, {} in the residual "
        "one; {}.",
        plain.net.depth, with_batch_norm(plain.net.batch_norm), number_cell(p), number_cell(r), judge_gradients(p, r)));
    const Difference apart = paired_difference(plain.losses, residual.losses, window);
    report.findings.push_back(fmt::format(
        "Depth {}, {}: over the last {} of {} steps the plain net's loss is {}, the residual one's {} (difference "
        "{:+.2g}, standard error {:.2g}): the residual net's is {}.",
        plain.net.depth, with_batch_norm(plain.net.batch_norm), window, steps,
        number_cell(smoothed(plain.losses, window).back()), number_cell(smoothed(residual.losses, window).back()),
        apart.mean, apart.error, words(side_of(apart))));
  }
  report.tables = {table, layers, steps_table};
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(fmt::format("width 128, batches of {}, {}, rate 0.05 with batch norm and 0.01 without", batch,
                                     optimizer_note({})));
  report.notes.push_back(without_norm_note());
  return report;
}

}  // namespace resnet

#include "lab/mlp.h"

#include <algorithm>

#include "lab/common.h"
#include "lab/probe.h"

namespace resnet {
namespace {

struct Course {
  Kind kind;
  int64_t depth;
  bool batch_norm;
  LayerGradients gradients;  ///< at initialisation
  std::vector<double> losses;

  double ratio() const { return gradients.layers.front().weight / gradients.layers.back().weight; }
};

std::string mlp_name(Kind kind, int64_t depth) {
  return fmt::format("{}{}_mlp", kind == Kind::plain ? "plain" : "resnet", depth);
}

}  // namespace

Report mlp(const LabConfig& c, const LabObserver& observer) {
  const std::vector<int64_t> depths = !c.depths.empty() ? c.depths : std::vector<int64_t>{20, 56};
  const int64_t steps = given_or(c.steps, c, 1000, 150);
  const int64_t batch = given_or(c.batch_size, c, 128, 64);
  std::vector<bool> norms;
  if (c.batch_norm != "on") norms.push_back(false);
  if (c.batch_norm != "off") norms.push_back(true);
  constexpr double kMaking = 20;
  double total = 0;
  for (const int64_t depth : depths) total += static_cast<double>(depth) * (static_cast<double>(steps) + kMaking);
  Work work(observer, total * 2 * static_cast<double>(norms.size()));
  const Dataset data = load_dataset(c.data, Split::train);
  std::vector<Course> courses;
  size_t peak = 0;
  for (const bool batch_norm : norms) {
    for (const int64_t depth : depths) {
      for (const Kind kind : {Kind::plain, Kind::residual}) {
        const std::string name =
            fmt::format("{} {} batch norm", short_name(kind, depth), batch_norm ? "with" : "without");
        SpecimenOptions options = specimen_options(c, mlp_name(kind, depth), batch);
        options.model_options.batch_norm = batch_norm;
        if (!batch_norm) options.model_options.init = WeightInit::pytorch;
        work.advance(0, name);
        Specimen net(data, options);
        Course course{kind, depth, batch_norm, LayerProbe(net).measure(), {}};
        work.advance(kMaking * static_cast<double>(depth), name);
        for (int64_t i = 0; i < steps; ++i) {
          course.losses.push_back(net.train_step(batch_norm ? 0.05 : 0.01).loss);
          work.advance(static_cast<double>(depth), name);
        }
        peak = std::max(peak, net.memory_bytes());
        courses.push_back(std::move(course));
      }
    }
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
  for (const bool batch_norm : norms) {
    const char* with = batch_norm ? "with batch norm" : "without batch norm";
    Chart gradients{.title = fmt::format("gradient at initialisation, {}", with),
                    .x_label = "place in the net (0: input, 1: output)",
                    .y_label = "gradient norm",
                    .series = {},
                    .log_y = true};
    Chart losses{.title = fmt::format("training loss, {}", with),
                 .x_label = "step",
                 .y_label = fmt::format("cross-entropy, mean of {} steps", window),
                 .series = {}};
    for (const Course& course : courses) {
      if (course.batch_norm != batch_norm) continue;
      const std::string name = short_name(course.kind, course.depth);
      const std::vector<double> curve = smoothed(course.losses, window);
      const double early = curve[std::min(window, curve.size()) - 1];
      table.rows.push_back({name, batch_norm ? "on" : "off", number_cell(course.ratio()), number_cell(early),
                            number_cell(curve.back())});
      Series gradient{name, {}, {}, {}, {}};
      const auto& measured = course.gradients.layers;
      for (size_t i = 0; i < measured.size(); ++i) {
        gradient.x.push_back(static_cast<double>(i) / static_cast<double>(measured.size() - 1));
        gradient.y.push_back(measured[i].weight);
        layers.rows.push_back({name, batch_norm ? "on" : "off", std::to_string(i + 1), measured[i].layer,
                               fmt::format("{:.6g}", measured[i].weight)});
      }
      gradients.series.push_back(gradient);
      losses.series.push_back({name, count_from(1, curve.size()), curve, {}, {}});
    }
    report.figures.push_back({batch_norm ? "with-batch-norm" : "without-batch-norm",
                              fmt::format("Fully connected nets {}.", with),
                              {gradients, losses}});
  }
  for (size_t i = 0; i + 1 < courses.size(); i += 2) {
    const Course &plain = courses[i], &residual = courses[i + 1];
    const double plain_loss = smoothed(plain.losses, window).back(),
                 residual_loss = smoothed(residual.losses, window).back();
    report.findings.push_back(
        fmt::format("Depth {}, {} batch norm: first layer's gradient over the last's is {} in the plain net, {} in the "
                    "residual one; after {} steps "
                    "their losses are {} and {}: {}.",
                    plain.depth, plain.batch_norm ? "with" : "without", number_cell(plain.ratio()),
                    number_cell(residual.ratio()), steps, number_cell(plain_loss), number_cell(residual_loss),
                    residual_loss < plain_loss ? "the residual net is ahead, as claimed"
                                               : "the residual net is not ahead, the claim does not show here"));
  }
  report.tables = {table, layers};
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(
      fmt::format("width 128, batches of {}, SGD with momentum 0.9, weight decay 1e-4, rate 0.05 with batch norm and "
                  "0.01 without; without batch norm "
                  "weights start as U(-1/sqrt(fan in), 1/sqrt(fan in))",
                  batch));
  return report;
}

}  // namespace resnet

#include "lab/depth.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lab/common.h"
#include "lab/judgement.h"

namespace resnet {
namespace {

struct Course {
  std::string name;
  Kind kind;
  bool zero_gamma;
  int64_t parameters = 0;
  double making_seconds = 0;
  double step_seconds = 0;
  size_t memory_bytes = 0;
  std::vector<double> losses, top1, rates;
};

/// As `resnet train`: the steps themselves were not applied.
constexpr size_t kMostNotFinite = 3;  // in a row

double mean(const std::vector<double>& values, size_t begin, size_t end) {
  return std::accumulate(values.begin() + static_cast<std::ptrdiff_t>(begin),
                         values.begin() + static_cast<std::ptrdiff_t>(end), 0.0) /
         static_cast<double>(end - begin);
}

}  // namespace

Report depth(const LabConfig& c, const LabObserver& observer) {
  const int64_t layers = given_or(c.layers, c, 1202, 110);
  const int64_t steps = given_or(c.steps, c, 200, 40);
  const int64_t batch = given_or(c.batch_size, c, 32, 32);
  constexpr size_t kWindow = 20;  // steps
  constexpr double kMaking = 3;
  // The paper's net, the same started as the identity (every block's last gamma is 0), and the plain one.
  struct Start {
    Kind kind;
    bool zero_gamma;
  };
  const std::vector<Start> starts = {{Kind::residual, false}, {Kind::residual, true}, {Kind::plain, false}};
  Work work(observer, static_cast<double>(starts.size()) * (static_cast<double>(steps) + kMaking));
  const Dataset data = load_dataset(c.data, Split::train);
  std::vector<Course> courses;
  for (const auto& [kind, zero_gamma] : starts) {
    const std::string name = short_name(kind, layers) + (zero_gamma ? ", gamma 0" : "");
    Course course{.name = name, .kind = kind, .zero_gamma = zero_gamma, .losses = {}, .top1 = {}, .rates = {}};
    work.advance(0, name);
    double start = work.seconds();
    SpecimenOptions options = specimen_options(c, cifar_name(kind, layers), batch, true);
    options.model_options.zero_init_residual = zero_gamma;
    Specimen net(data, options);
    net.prepare_step();
    course.making_seconds = work.seconds() - start;
    course.parameters = net.parameters();
    course.memory_bytes = net.memory_bytes();
    work.advance(kMaking, name);
    start = work.seconds();
    bool warm = false;
    size_t not_finite = 0;
    for (int64_t i = 0; i < steps && not_finite < kMostNotFinite; ++i) {
      const size_t done = course.top1.size();
      warm = warm || (done >= kWindow && mean(course.top1, done - kWindow, done) > 0.2);
      course.rates.push_back(warm ? 0.1 : 0.01);
      const StepResult step = net.train_step(course.rates.back());
      course.losses.push_back(step.loss);
      course.top1.push_back(step.top1);
      not_finite = std::isfinite(step.loss) ? 0 : not_finite + 1;
      work.advance(1, fmt::format("{} step {}/{} loss {:.3f}", name, i + 1, steps, step.loss));
    }
    tell_warnings(net, observer);
    const auto done = static_cast<double>(course.losses.size());
    course.step_seconds = (work.seconds() - start) / done;
    work.advance(static_cast<double>(steps) - done, name);
    courses.push_back(std::move(course));
  }

  Report report;
  report.name = "depth";
  report.title = fmt::format("Do {} layers train?", layers);
  report.claim = "Residual connections make very deep nets easy to train, even one thousand layers.";
  report.command = command_of(report.name, c);
  const double guessing = std::log(static_cast<double>(data.classes()));
  ReportTable table{"Nets",
                    {"net", "parameters", "memory (GB)", "making the program (s)", "seconds a step",
                     "loss, first steps", "loss, last steps"},
                    {}};
  ReportTable steps_table{"Steps", {"net", "step", "rate", "loss", "top1"}, {}};
  Chart chart{.title = "training loss",
              .x_label = "step",
              .y_label = fmt::format("cross-entropy, mean of {} steps", kWindow),
              .series = {},
              .log_y = true};
  size_t peak = 0;
  for (const Course& course : courses) {
    const std::string& name = course.name;
    const size_t n = course.losses.size(), window = std::min(kWindow, n);
    const double before = mean(course.losses, 0, window), after = mean(course.losses, n - window, n);
    peak = std::max(peak, course.memory_bytes);
    table.rows.push_back({name, std::to_string(course.parameters),
                          fmt::format("{:.2f}", static_cast<double>(course.memory_bytes) / 1e9),
                          fmt::format("{:.1f}", course.making_seconds), fmt::format("{:.2f}", course.step_seconds),
                          number_cell(before), number_cell(after)});
    for (size_t i = 0; i < n; ++i) {
      steps_table.rows.push_back({name, std::to_string(i + 1), number_cell(course.rates[i]),
                                  number_cell(course.losses[i]), number_cell(course.top1[i])});
    }
    const bool ended = std::isfinite(course.losses.back());
    chart.series.push_back({ended ? name : name + " (diverged)",
                            count_from(1, n),
                            smoothed(course.losses, kWindow),
                            {},
                            {},
                            style_of(course.kind, course.zero_gamma ? 1 : 0)});
    report.findings.push_back(fmt::format(
        "{}: the loss goes from {} (mean of the first {} steps) to {} (of the last {} of {}): {}. {:.2f} GB, "
        "program made in {:.1f} s, {:.2f} s a step.",
        name, number_cell(before), window, number_cell(after), window, n,
        judge_training(course.losses, after, guessing, kMostNotFinite), static_cast<double>(course.memory_bytes) / 1e9,
        course.making_seconds, course.step_seconds));
  }
  report.tables = {table, steps_table};
  report.figures = {
      {"", fmt::format("A loss of {:.3f} is guessing among {} classes.", guessing, data.classes()), {chart}}};
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(
      fmt::format("batches of {}, {}, rate 0.01 until the error of 20 steps is below 80 %, then 0.1; three losses in a "
                  "row that are not finite end a run",
                  batch, optimizer_note({})));
  return report;
}

}  // namespace resnet

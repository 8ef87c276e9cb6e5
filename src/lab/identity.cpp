#include "lab/identity.h"

#include <algorithm>

#include "lab/common.h"
#include "lab/judgement.h"
#include "lab/probe.h"

namespace resnet {
namespace {

struct Course {
  int64_t depth;
  std::vector<BlockGradient> before, after;  ///< training
};

double mean_share(const std::vector<BlockGradient>& blocks) {
  double sum = 0;
  for (const BlockGradient& b : blocks) sum += b.branch_share;
  return sum / static_cast<double>(blocks.size());
}

double worst_gap(const std::vector<BlockGradient>& blocks) {
  double worst = 0;
  for (const BlockGradient& b : blocks) worst = larger(worst, b.largest_gap / b.largest_total);
  return worst;
}

Series curve(const std::string& name, const std::vector<BlockGradient>& blocks, double BlockGradient::*member) {
  Series s{name, count_from(1, blocks.size()), {}, {}, {}};
  for (const BlockGradient& b : blocks) s.y.push_back(b.*member);
  return s;
}

}  // namespace

Report identity(const LabConfig& c, const LabObserver& observer) {
  const std::vector<int64_t> depths = !c.depths.empty() ? c.depths : std::vector<int64_t>{c.quick ? 20 : 56};
  const int64_t steps = given_or(c.steps, c, 300, 60);
  const int64_t batch = given_or(c.batch_size, c, 64, 32);
  constexpr double kMaking = 20;
  double total = 0;
  for (const int64_t depth : depths) total += static_cast<double>(depth) * (static_cast<double>(steps) + 2 * kMaking);
  Work work(observer, total);
  const Dataset data = load_dataset(c.data, Split::train);
  std::vector<Course> courses;
  size_t peak = 0;
  for (const int64_t depth : depths) {
    const std::string name = short_name(Kind::residual, depth);
    const auto layers = static_cast<double>(depth);
    work.advance(0, name);
    Specimen net(data, specimen_options(c, cifar_name(Kind::residual, depth), batch, true));
    BlockProbe probe(net);
    Course course{depth, probe.measure(), {}};
    work.advance(kMaking * layers, name);
    for (int64_t i = 0; i < steps; ++i) {
      net.train_step(0.1);
      work.advance(layers * (i == 0 ? 1 + kMaking : 1), name);
    }
    course.after = probe.measure();
    tell_warnings(net, observer);
    peak = std::max(peak, net.memory_bytes());
    courses.push_back(std::move(course));
  }

  Report report;
  report.name = "identity";
  report.title = "What flows through a residual block?";
  report.claim =
      "The gradient by a block's input is the shortcut's plus the branch's: whatever the branch's weights are, the "
      "shortcut hands on the whole of what comes back.";
  report.command = command_of(report.name, c);
  ReportTable table{"Blocks",
                    {"net", "step", "block", "through shortcut", "through branch", "whole",
                     "largest gap / largest value", "|branch| / |shortcut|"},
                    {}};
  for (const auto& [depth, before, after] : courses) {
    const std::string name = short_name(Kind::residual, depth);
    for (const auto& [step, blocks] : {std::pair{int64_t{0}, &before}, {steps, &after}}) {
      for (size_t i = 0; i < blocks->size(); ++i) {
        const BlockGradient& b = (*blocks)[i];
        table.rows.push_back({name, std::to_string(step), std::to_string(i + 1), number_cell(b.shortcut),
                              number_cell(b.branch), number_cell(b.total), number_cell(b.largest_gap / b.largest_total),
                              number_cell(b.branch_share)});
      }
    }
    report.figures.push_back(
        {courses.size() > 1 ? name : "",
         "Left: the two parts of the gradient and the whole. Right: how much a block changes what passes it.",
         {{.title = fmt::format("gradient by the block's input, after {} steps", steps),
           .x_label = "block",
           .y_label = "L2 norm",
           .series = {curve("whole", after, &BlockGradient::total), curve("shortcut", after, &BlockGradient::shortcut),
                      curve("branch", after, &BlockGradient::branch)}},
          {.title = "|branch| / |shortcut| of the values",
           .x_label = "block",
           .y_label = "ratio",
           .series = {curve("at start", before, &BlockGradient::branch_share),
                      curve(fmt::format("+{} steps", steps), after, &BlockGradient::branch_share)}}}});
    report.findings.push_back(fmt::format(
        "{}: in all {} blocks, before and after training, shortcut + branch differs from the whole gradient by at most "
        "{} of its largest value.",
        name, before.size(), number_cell(larger(worst_gap(before), worst_gap(after)))));
    report.findings.push_back(
        fmt::format("{}: the branch is {:.2f} of the shortcut at initialisation and {:.2f} after {} steps (mean over "
                    "blocks).",
                    name, mean_share(before), mean_share(after), steps));
  }
  report.tables = {table};
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(fmt::format("batches of {}, {}, rate 0.1", batch, optimizer_note({})));
  return report;
}

}  // namespace resnet

#include "lab/identity.h"

#include <algorithm>

#include "lab/common.h"
#include "lab/probe.h"

namespace resnet {

Report identity(const LabConfig& c, const LabObserver& observer) {
  const int64_t depth = c.depths.empty() ? (c.quick ? 20 : 56) : c.depths.front();
  const int64_t steps = given_or(c.steps, c, 300, 60);
  const int64_t batch = given_or(c.batch_size, c, 64, 32);
  constexpr double kMaking = 20;
  Work work(observer, static_cast<double>(steps) + 2 * kMaking);
  const std::string name = short_name(Kind::residual, depth);
  work.advance(0, name);
  const Dataset data = load_dataset(c.data, Split::train);
  Specimen net(data, specimen_options(c, cifar_name(Kind::residual, depth), batch));
  BlockProbe probe(net);
  const std::vector<BlockGradient> before = probe.measure();
  work.advance(kMaking, name);
  for (int64_t i = 0; i < steps; ++i) {
    net.train_step(0.1);
    work.advance(i == 0 ? 1 + kMaking : 1, name);
  }
  const std::vector<BlockGradient> after = probe.measure();

  Report report;
  report.name = "identity";
  report.title = "What flows through a residual block?";
  report.claim =
      "The gradient by a block's input is the shortcut's plus the branch's: the shortcut's part does not depend on the "
      "branch.";
  report.command = command_of(report.name, c);
  ReportTable table{"Blocks",
                    {"step", "block", "through shortcut", "through branch", "whole", "largest gap / largest value",
                     "|branch| / |shortcut|"},
                    {}};
  double worst = 0;
  Chart sums{.title = fmt::format("gradient by the block's input, after {} steps", steps),
             .x_label = "block",
             .y_label = "L2 norm",
             .series = {}};
  Chart shares{.title = "|branch| / |shortcut| of the values", .x_label = "block", .y_label = "ratio", .series = {}};
  for (const auto& [step, blocks] : {std::pair{int64_t{0}, &before}, {steps, &after}}) {
    Series share{step == 0 ? "at start" : fmt::format("+{} steps", step), {}, {}, {}, {}};
    for (size_t i = 0; i < blocks->size(); ++i) {
      const BlockGradient& b = (*blocks)[i];
      const double gap = b.largest_gap / b.largest_total;
      worst = std::max(worst, gap);
      table.rows.push_back({std::to_string(step), std::to_string(i + 1), number_cell(b.shortcut), number_cell(b.branch),
                            number_cell(b.total), fmt::format("{:.1e}", gap), number_cell(b.branch_share)});
      share.x.push_back(static_cast<double>(i + 1));
      share.y.push_back(b.branch_share);
    }
    shares.series.push_back(share);
  }
  const auto part = [&](const char* label, double BlockGradient::*member) {
    Series s{label, count_from(1, after.size()), {}, {}, {}};
    for (const BlockGradient& b : after) s.y.push_back(b.*member);
    sums.series.push_back(s);
  };
  part("whole", &BlockGradient::total);
  part("shortcut", &BlockGradient::shortcut);
  part("branch", &BlockGradient::branch);
  report.tables = {table};
  report.figures = {
      {"",
       "Left: the two parts of the gradient and the whole. Right: how much a block changes what passes it.",
       {sums, shares}}};
  report.findings.push_back(
      fmt::format("In all {} blocks, before and after training, shortcut + branch differs from the whole gradient by "
                  "at most {:.1e} of its largest value.",
                  before.size(), worst));
  const auto mean_share = [](const std::vector<BlockGradient>& blocks) {
    double sum = 0;
    for (const BlockGradient& b : blocks) sum += b.branch_share;
    return sum / static_cast<double>(blocks.size());
  };
  report.findings.push_back(fmt::format(
      "The branch is {:.2f} of the shortcut at initialisation and {:.2f} after {} steps (mean over blocks).",
      mean_share(before), mean_share(after), steps));
  report.notes = notes_of(c, work.seconds(), net.memory_bytes());
  report.notes.push_back(
      fmt::format("{}, batches of {}, SGD with momentum 0.9, weight decay 1e-4, rate 0.1", name, batch));
  return report;
}

}  // namespace resnet

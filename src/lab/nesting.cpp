#include "lab/nesting.h"

#include <algorithm>
#include <cmath>

#include "lab/common.h"
#include "lab/judgement.h"
#include "lab/probe.h"

namespace resnet {
namespace {

constexpr double kRate = 0.1;
/// Of the second half of training on: at the full rate a loss jumps too much to say where it ends.
constexpr double kLastRate = 0.01;

enum class Added { zero_gamma, as_initialised };

/// Gives `deep` the values of a shallower net and, with zero_gamma, makes every added block's last batch norm give 0.
void nest(const std::map<std::string, Tensor>& shallow, Added added, Specimen& deep) {
  for (auto& [name, value] : deep.values()) {
    const auto found = shallow.find(name);
    if (found != shallow.end()) {
      deep.set_value(name, found->second);
    } else if (added == Added::zero_gamma && name.ends_with("bn2.weight")) {
      deep.set_value(name, Tensor(value.type()));  // a new tensor is zero
    }
  }
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double largest = 0;
  for (size_t i = 0; i < a.as<float>().size(); ++i) {
    largest = larger(largest, std::abs(static_cast<double>(a.as<float>()[i]) - static_cast<double>(b.as<float>()[i])));
  }
  return largest;
}

struct Comparison {
  Kind kind;
  Added added;
  double difference = 0;                          ///< largest magnitude between the logits of the two nets
  double shallow_loss = 0, deep_loss = 0;         ///< of the first training batch, by its own statistics
  std::vector<double> shallow_curve, deep_curve;  ///< losses of the steps after that; empty if not trained on
};

}  // namespace

std::pair<int64_t, int64_t> nesting_depths(const LabConfig& c) {
  if (c.depths.empty()) return {20, 32};
  if (c.depths.size() != 2 || c.depths[0] >= c.depths[1]) {
    throw UserError("--depths: {}; expected two depths for nesting, the shallower first, such as 20,32",
                    fmt::join(c.depths, ","));
  }
  return {c.depths[0], c.depths[1]};
}

Report nesting(const LabConfig& c, const LabObserver& observer) {
  const auto [shallow_depth, deep_depth] = nesting_depths(c);
  const int64_t steps = given_or(c.steps, c, 400, 60);
  const int64_t batch = given_or(c.batch_size, c, 64, 32);
  const int64_t compared = c.quick ? 256 : 2000;  // images
  constexpr double kMaking = 20;
  const auto cost = [&](int64_t depth) { return static_cast<double>(depth) * (static_cast<double>(steps) + kMaking); };
  Work work(observer, 2 * (2 * cost(shallow_depth) + cost(deep_depth)));

  const Dataset data = load_dataset(c.data, Split::train);
  const Dataset test = load_dataset(c.data, Split::test);
  const int64_t images = std::min(compared, test.count);
  size_t peak = 0;
  const auto rate_on = [&](int64_t step) { return step < steps / 2 ? kRate : kLastRate; };
  const auto train = [&](Specimen& net, const std::string& name, int64_t depth, const auto& rate) {
    std::vector<double> losses;
    work.advance(kMaking * static_cast<double>(depth), name);
    for (int64_t i = 0; i < steps; ++i) {
      losses.push_back(net.train_step(rate(i)).loss);
      work.advance(static_cast<double>(depth), name);
    }
    tell_warnings(net, observer);
    peak = std::max(peak, net.memory_bytes());
    return losses;
  };

  std::vector<Comparison> all;
  for (const Kind kind : {Kind::residual, Kind::plain}) {
    const auto options = [&](int64_t depth) { return specimen_options(c, cifar_name(kind, depth), batch, true); };
    std::map<std::string, Tensor> trained;
    {
      Specimen net(data, options(shallow_depth));
      train(net, short_name(kind, shallow_depth), shallow_depth, [](int64_t) { return kRate; });
      trained = net.values();
    }
    // All nets start from these values with momenta of 0 and see the same batches.
    Specimen shallow(data, options(shallow_depth));
    nest(trained, Added::as_initialised, shallow);
    const Tensor shallow_logits = shallow.logits(test, images);
    const double shallow_loss = LayerProbe(shallow).measure().loss;
    std::vector<double> shallow_curve;
    for (const Added added : {Added::zero_gamma, Added::as_initialised}) {
      // A residual net's added blocks are made the identity; a plain net is also shown as it starts.
      if (kind == Kind::residual && added == Added::as_initialised) continue;
      Specimen deep(data, options(deep_depth));
      nest(trained, added, deep);
      Comparison comparison{.kind = kind,
                            .added = added,
                            .difference = largest_difference(shallow_logits, deep.logits(test, images)),
                            .shallow_loss = shallow_loss,
                            .deep_loss = LayerProbe(deep).measure().loss,
                            .shallow_curve = {},
                            .deep_curve = {}};
      // With gamma 0 a plain net passes nothing on, neither values nor gradients.
      if (kind == Kind::residual || added == Added::as_initialised) {
        if (shallow_curve.empty()) {
          shallow_curve = train(shallow, short_name(kind, shallow_depth) + " trained on", shallow_depth, rate_on);
        }
        comparison.shallow_curve = shallow_curve;
        comparison.deep_curve = train(deep, short_name(kind, deep_depth) + " trained on", deep_depth, rate_on);
      }
      all.push_back(std::move(comparison));
    }
  }

  Report report;
  report.name = "nesting";
  report.title = "Does the deeper net contain the shallower one?";
  report.claim =
      "Only a larger class of functions that contains the smaller one is sure to do no worse: a residual net is any "
      "shallower one when the added branches are 0; a plain net's added layers would have to learn the identity.";
  report.command = command_of(report.name, c);
  const size_t window = static_cast<size_t>(std::max<int64_t>(1, steps / 4));
  const size_t curve_window = static_cast<size_t>(std::max<int64_t>(1, steps / 10));
  const auto last = [&](const std::vector<double>& curve) { return smoothed(curve, window).back(); };
  ReportTable table{"Nets",
                    {"kind", "added layers", "largest logit difference", "loss, shallow net", "loss, deep net",
                     "shallow, trained on", "deep, trained on", "deep - shallow"},
                    {}};
  ReportTable steps_table{"Steps", {"net", "step", "rate", "loss"}, {}};
  Chart chart{.title = "training loss after nesting",
              .x_label = "step",
              .y_label = fmt::format("cross-entropy, mean of {} steps", curve_window),
              .series = {}};
  for (const Comparison& r : all) {
    const bool trained_on = !r.deep_curve.empty();
    const Difference apart = trained_on ? paired_difference(r.shallow_curve, r.deep_curve, window) : Difference{};
    table.rows.push_back(
        {r.kind == Kind::plain ? "plain" : "residual", r.added == Added::zero_gamma ? "last gamma 0" : "as initialised",
         number_cell(r.difference), number_cell(r.shallow_loss), number_cell(r.deep_loss),
         trained_on ? number_cell(last(r.shallow_curve)) : "-", trained_on ? number_cell(last(r.deep_curve)) : "-",
         trained_on ? fmt::format("{:+.2g} ± {:.2g}", apart.mean, apart.error) : "-"});
    const std::string who =
        fmt::format("{} net with {} layers nested in {}, added layers {}", r.kind == Kind::plain ? "Plain" : "Residual",
                    shallow_depth, deep_depth, r.added == Added::zero_gamma ? "with last gamma 0" : "as initialised");
    report.findings.push_back(fmt::format(
        "{}: the logits of {} test images differ by at most {}{}; the loss is {} before and {} after nesting.", who,
        images, number_cell(r.difference), r.difference == 0 ? " (exactly)" : "", number_cell(r.shallow_loss),
        number_cell(r.deep_loss)));
    if (!trained_on) continue;
    report.findings.push_back(fmt::format(
        "Trained on for {} steps, the {} layers end at a training loss of {} and the {} layers at {} (mean "
        "of the last {} steps; difference {:+.2g}, standard error {:.2g}): the deeper {} net ends {}.",
        steps, shallow_depth, number_cell(last(r.shallow_curve)), deep_depth, number_cell(last(r.deep_curve)), window,
        apart.mean, apart.error, r.kind == Kind::plain ? "plain" : "residual", words(side_of(apart))));
    for (const auto& [depth, curve] : {std::pair{shallow_depth, &r.shallow_curve}, {deep_depth, &r.deep_curve}}) {
      chart.series.push_back({short_name(r.kind, depth),
                              count_from(1, curve->size()),
                              smoothed(*curve, curve_window),
                              {},
                              {},
                              style_of(r.kind, depth == shallow_depth ? 0 : 1)});
      for (size_t i = 0; i < curve->size(); ++i) {
        steps_table.rows.push_back({short_name(r.kind, depth), std::to_string(i + 1),
                                    number_cell(rate_on(static_cast<int64_t>(i))), fmt::format("{:.5g}", (*curve)[i])});
      }
    }
  }
  report.tables = {table, steps_table};
  report.figures = {{"", "Both depths go on from the trained shallow net, on the same batches.", {chart}}};
  report.notes = notes_of(c, work.seconds(), peak);
  report.notes.push_back(fmt::format(
      "batches of {}, {}, rate {}, in the second half of training on {}; the losses before and after nesting are of "
      "one "
      "training batch, by its own statistics; a standard error takes steps as independent, and one seed was run",
      batch, optimizer_note({}), kRate, kLastRate));
  return report;
}

}  // namespace resnet

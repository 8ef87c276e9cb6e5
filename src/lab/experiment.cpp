#include "lab/experiment.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "lab/common.h"
#include "lab/degradation.h"
#include "lab/depth.h"
#include "lab/gradient_flow.h"
#include "lab/identity.h"
#include "lab/mlp.h"
#include "lab/nesting.h"
#include "runtime/backends.h"

namespace resnet {

void validate(const LabConfig& c) {
  const auto whole = [](int64_t value, int64_t low, int64_t high, const char* flag, const char* expected) {
    if (value < low || value > high) throw UserError("{}: {}; expected {}", flag, value, expected);
  };
  whole(c.image_size, 8, 512, "--image-size", "8 to 512 pixels");
  for (size_t i = 0; i < c.depths.size(); ++i) {
    whole(c.depths[i], 4, 5000, "--depths", "4 to 5000 layers each");
    if (i > 0 && c.depths[i] <= c.depths[i - 1]) {
      throw UserError("--depths: {}; expected ascending ones, each once", fmt::join(c.depths, ","));
    }
  }
  if (c.batch_norm != "on" && c.batch_norm != "off" && c.batch_norm != "both") {
    throw UserError("--batch-norm: '{}'; expected on, off or both", escape_control(c.batch_norm));
  }
  if (c.layers != 0) whole(c.layers, 8, 5000, "--layers", "8 to 5000");
  whole(c.steps, 0, 1000000, "--steps", "0 (the experiment's own) to 1000000");
  whole(c.epochs, 0, 1000, "--epochs", "0 (the experiment's own) to 1000");
  whole(c.seeds, 0, 100, "--seeds", "0 (the experiment's own) to 100");
  whole(c.limit, 0, INT64_MAX, "--limit", "0 (the experiment's own) or more images");
  whole(c.batch_size, 0, 65536, "--batch-size", "0 (the experiment's own) to 65536 images");
  if (c.batch_size == 1) throw UserError("--batch-size: 1; expected 2 or more: batch norm needs a batch");
  whole(c.seed, 0, INT64_MAX / 2, "--seed", "0 or more");
  whole(c.threads, 0, 1024, "--threads", "0 (all) to 1024");
}

void Work::advance(double units, const std::string& what) {
  tell(units, what);
  const int signal = observer_.stop_signal ? observer_.stop_signal->load() : 0;
  if (signal != 0) throw Interrupted{signal};
}

void Work::tell(double units, const std::string& what) {
  done_ += units;
  const double share = std::min((done_ + skipped_) / total_, 1.0);
  if (observer_.on_progress) {
    observer_.on_progress(what, share, done_ > 0 ? seconds() * (1 - share) * total_ / done_ : HUGE_VAL);
  }
}

double Work::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

namespace {

void check_cifar_depths(const LabConfig& c) {
  for (const int64_t depth : c.depths) find_model(cifar_name(Kind::residual, depth));
}

}  // namespace

const std::vector<Experiment>& all_experiments() {
  static const std::vector<Experiment> list = {
      {"gradient-flow",
       "norm of the loss gradient at each layer, plain against residual",
       {"depths", "batch-norm", "steps"},
       check_cifar_depths,
       gradient_flow},
      {"identity",
       "a block's gradient is the shortcut's plus the branch's, measured",
       {"depths", "steps"},
       check_cifar_depths,
       identity},
      {"nesting",
       "a deeper residual net contains the shallower one exactly",
       {"depths", "steps"},
       [](const LabConfig& c) {
         nesting_depths(c);
         check_cifar_depths(c);
       },
       nesting},
      {"degradation",
       "training and test error of plain and residual nets as they get deeper",
       {"depths", "epochs", "seeds"},
       check_cifar_depths,
       degradation},
      {"depth",
       "a net of 1202 layers trains, its plain twin beside it",
       {"layers", "steps"},
       [](const LabConfig& c) {
         if (c.layers > 0) find_model(cifar_name(Kind::residual, c.layers));
       },
       depth},
      {"mlp",
       "the same for fully connected nets",
       {"depths", "batch-norm", "steps"},
       [](const LabConfig& c) {
         for (const int64_t depth : c.depths) find_model(mlp_name(Kind::residual, depth));
       },
       mlp},
  };
  return list;
}

void check_before(const LabConfig& config, const std::vector<Experiment>& chosen) {
  validate(config);
  for (const Experiment& experiment : chosen) experiment.check(config);
  make_backend(config.backend, 1);
  load_dataset(config.data, Split::test);
  load_dataset(config.data, Split::train);
}

const Experiment& find_experiment(const std::string& name) {
  std::vector<std::string> names;
  for (const Experiment& experiment : all_experiments()) {
    if (experiment.name == name) return experiment;
    names.push_back(experiment.name);
  }
  throw UserError("experiment '{}' is unknown; nearest: {}; `resnet lab` lists all", escape_control(name),
                  nearest_names(name, names));
}

std::string number_cell(double value) {
  if (!std::isfinite(value)) return "not finite";
  const double magnitude = std::abs(value);
  if (magnitude != 0 && (magnitude < 1e-3 || magnitude >= 1e5)) return fmt::format("{:.2e}", value);
  return fmt::format("{:.4g}", value);
}

}  // namespace resnet

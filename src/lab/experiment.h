#pragma once
// What every experiment takes, tells and returns, and the list of them.

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "lab/report.h"

namespace resnet {

/// Settings of `resnet lab`. An empty list or a 0 stands for the experiment's own default, which is smaller with
/// `quick`.
struct LabConfig {
  std::string data = "fashion-mnist";
  int64_t image_size = 28;          ///< pixels; 28 is Fashion-MNIST as it is
  std::vector<int64_t> depths;      ///< layers with weights: 6n+2 of a convolutional net, even for an MLP
  std::string batch_norm = "both";  ///< of gradient-flow and mlp: on, off or both
  int64_t layers = 0;               ///< of depth
  int64_t steps = 0;
  int64_t epochs = 0;
  int64_t seeds = 0;  ///< runs that differ in nothing but their seed
  int64_t limit = 0;  ///< the first N training images
  int64_t batch_size = 0;
  int64_t seed = 0;     ///< the first one
  int64_t threads = 0;  ///< 0: all CPUs this process may use
  std::string backend = "cpu";
  std::string output = "runs/lab";  ///< folder of the reports
  bool quick = false;               ///< minutes instead of hours: fewer steps, depths and seeds
};

/// Throws UserError naming the flag, what came and what is accepted.
void validate(const LabConfig& config);

/// What an experiment tells while it works. The library never prints.
struct LabObserver {
  /// `done` of 1, and the seconds left if the rest goes as what was done.
  std::function<void(const std::string& what, double done, double seconds_left)> on_progress;
  std::function<void(const std::string& text)> on_warning;
  const std::atomic<int>* stop_signal = nullptr;  ///< non-zero: stop at the next step
};

/// Thrown when the observer's signal came: reports written before stay.
struct Interrupted {
  int signal;
};

/// Work measured in any unit that is proportional to time.
class Work {
 public:
  Work(const LabObserver& observer, double total) : observer_(observer), total_(total) {}
  /// Tells the observer. Throws Interrupted when the signal came.
  void advance(double units, const std::string& what);
  /// Tells the observer, for callers that stop at the signal by themselves.
  void tell(double units, const std::string& what);
  /// Counts work that was done before, or need not be done: it says nothing of the rate.
  void skip(double units) { skipped_ += units; }
  double seconds() const;

 private:
  const LabObserver& observer_;
  double total_;
  double done_ = 0;
  double skipped_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Experiment {
  std::string name;
  std::string summary;                          ///< one line: what it measures
  std::vector<std::string> takes;               ///< of the settings that not every experiment has: depths, epochs, ...
  std::function<void(const LabConfig&)> check;  ///< throws UserError for depths that its nets do not have
  std::function<Report(const LabConfig&, const LabObserver&)> run;
};

/// All that can be refused before anything is measured or written: settings, depths, backend, data.
void check_before(const LabConfig& config, const std::vector<Experiment>& chosen);

/// In the order of the lecture.
const std::vector<Experiment>& all_experiments();
/// Throws UserError with the nearest names when there is no such experiment.
const Experiment& find_experiment(const std::string& name);

/// "0.123", "1.2e-07", "not finite": a number for a table.
std::string number_cell(double value);

}  // namespace resnet

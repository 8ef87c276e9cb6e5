#include "train/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "plot/chart.h"

namespace resnet {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr uint64_t kTextLimit = uint64_t{1} << 30;

/// Whether there is anything of that name. What cannot be looked at counts as there: opening it gives the reason.
bool exists(const std::string& path) {
  std::error_code error;
  return fs::symlink_status(path, error).type() != fs::file_type::not_found;
}

json to_json(const EpochMetrics& m) {
  return {{"epoch", m.epoch},
          {"train_loss", m.train_loss},
          {"train_top1", m.train_top1},
          {"eval_loss", m.eval_loss},
          {"eval_top1", m.eval_top1},
          {"eval_top5", m.eval_top5},
          {"lr", m.lr},
          {"images_per_second", m.images_per_second},
          {"seconds", m.seconds}};
}

/// JSON has no NaN: it is written as null and read back as NaN.
double number(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

EpochMetrics metrics_from_json(const json& j) {
  return {j.at("epoch").get<int64_t>(), number(j.at("train_loss")),        number(j.at("train_top1")),
          number(j.at("eval_loss")),    number(j.at("eval_top1")),         number(j.at("eval_top5")),
          number(j.at("lr")),           number(j.at("images_per_second")), number(j.at("seconds"))};
}

}  // namespace

std::string to_json(const TrainState& s) {
  json metrics = json::array();
  for (const EpochMetrics& m : s.metrics) metrics.push_back(to_json(m));
  const json j = {{"step", s.step},
                  {"epoch", s.epoch},
                  {"sample", s.sample},
                  {"epoch_loss_sum", s.epoch_loss_sum},
                  {"epoch_correct", s.epoch_correct},
                  {"epoch_images", s.epoch_images},
                  {"epoch_seconds", s.epoch_seconds},
                  {"skipped_samples", s.skipped_samples},
                  {"non_finite_steps", s.non_finite_steps},
                  {"best_top1", s.best_top1},
                  {"evaluation_pending", s.evaluation_pending},
                  {"data_fingerprint", fmt::format("{:016x}", s.data_fingerprint)},
                  {"threads", s.threads},
                  {"instruction_set", s.instruction_set},
                  {"machine", s.machine},
                  {"version", s.version},
                  {"choices", s.choices},
                  {"metrics", metrics}};
  return j.dump(1) + "\n";
}

TrainState train_state_from_json(const std::string& path, const std::string& text) {
  const json j = json::parse(text, nullptr, false);
  if (!j.is_object()) throw bad_data(path, 0, "state", "not a JSON object; expected a checkpoint's state");
  try {
    TrainState s;
    s.step = j.at("step").get<int64_t>();
    s.epoch = j.at("epoch").get<int64_t>();
    s.sample = j.at("sample").get<int64_t>();
    s.epoch_loss_sum = number(j.at("epoch_loss_sum"));
    s.epoch_correct = j.at("epoch_correct").get<int64_t>();
    s.epoch_images = j.at("epoch_images").get<int64_t>();
    s.epoch_seconds = number(j.at("epoch_seconds"));
    s.skipped_samples = j.value("skipped_samples", int64_t{0});  // files of before have none
    s.non_finite_steps = j.at("non_finite_steps").get<int64_t>();
    s.best_top1 = number(j.at("best_top1"));
    s.evaluation_pending = j.at("evaluation_pending").get<bool>();
    s.data_fingerprint = std::stoull(j.at("data_fingerprint").get<std::string>(), nullptr, 16);
    s.threads = j.at("threads").get<int64_t>();
    s.instruction_set = j.at("instruction_set").get<std::string>();
    s.machine = j.at("machine").get<std::string>();
    s.version = j.at("version").get<std::string>();
    s.choices = j.at("choices").get<std::map<std::string, std::string>>();
    for (const json& m : j.at("metrics")) s.metrics.push_back(metrics_from_json(m));
    return s;
  } catch (const std::exception& error) {
    throw bad_data(path, 0, "state", "{}; expected a checkpoint's state", escape_control(error.what()));
  }
}

RunDirectory RunDirectory::create(const std::string& path, const TrainConfig& config) {
  std::error_code error;
  const bool made = fs::create_directories(path, error);
  if (error) throw io_error(path, "create the run directory", error.value());
  if (!made) require_free(path);
  RunDirectory run(path);
  run.lock();
  run.made_ = made;  // only now: another process may have taken it, and withdraw() must not remove its run
  try {
    atomic_write_file(path + "/config.toml", to_toml(config));
    run.write_metrics({});
    run.rewind_events(0, false);
  } catch (...) {  // a full disk, say
    run.withdraw();
    throw;
  }
  return run;
}

void RunDirectory::require_free(const std::string& path) {
  if (!exists(path)) return;
  std::error_code error;
  if (!fs::is_directory(path, error)) throw io_error(path, "create the run directory", error ? error.value() : ENOTDIR);
  // A run that ended before its first checkpoint holds nothing to lose: it is begun anew.
  if (holds_checkpoint(path)) {
    throw UserError(
        ExitCode::refused,
        "{}: holds a run already; expected a new directory; continue it with --resume {}, or give another --output",
        path, path);
  }
  const bool empty = fs::is_empty(path, error);
  if (error) throw io_error(path, "list the run directory", error.value());
  if (!empty && !exists(path + "/.lock")) {
    throw UserError(ExitCode::refused,
                    "{}: is not empty and holds no run; expected a new directory; give another --output", path);
  }
}

void RunDirectory::withdraw() noexcept {
  std::error_code ignored;
  if (made_) fs::remove_all(path_, ignored);
}

RunDirectory RunDirectory::open(const std::string& path) {
  struct stat info {};
  if (::stat((path + "/config.toml").c_str(), &info) != 0) throw io_error(path + "/config.toml", "open the run", errno);
  RunDirectory run(path);
  run.lock();
  return run;
}

std::string RunDirectory::newest(const std::string& parent) {
  std::string best;
  fs::file_time_type best_time{};
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(parent, error)) {
    std::error_code ignored;
    // A run killed during its first save has a checkpoint, but no `last`.
    const auto time = fs::last_write_time(
        entry.path() / (exists(entry.path() / "last") ? "last/manifest.json" : "config.toml"), ignored);
    if (ignored || !exists(entry.path() / "config.toml") || !holds_checkpoint(entry.path())) continue;
    if (best.empty() || time > best_time) {
      best = entry.path();
      best_time = time;
    }
  }
  if (best.empty()) {
    throw ResourceError(ExitCode::io,
                        "{}: holds no run with a checkpoint; expected one to resume; give its path: --resume PATH",
                        parent);
  }
  return best;
}

std::string RunDirectory::fresh_name(const std::string& prefix) {
  for (int64_t number = 1;; ++number) {
    const std::string path = fmt::format("{}-{}", prefix, number);
    if (!exists(path)) return path;
  }
}

void RunDirectory::lock() {
  const std::string path = path_ + "/.lock";
  lock_ = FileDescriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (lock_.value() < 0) throw io_error(path, "open the lock", errno);
  if (::flock(lock_.value(), LOCK_EX | LOCK_NB) != 0) {
    throw UserError(ExitCode::refused,
                    "{}: another process is writing this run; expected it idle; wait for it, or give another --output",
                    path_);
  }
}

TrainConfig RunDirectory::config() const {
  TrainConfig config;
  const std::string path = path_ + "/config.toml";
  apply_toml(path, read_whole_file(path, 1 << 20), config);
  return config;
}

bool RunDirectory::before_first_checkpoint() const { return !holds_checkpoint(path_); }

void RunDirectory::write_metrics(const std::vector<EpochMetrics>& metrics) const {
  std::string text = "epoch,train_loss,train_top1,eval_loss,eval_top1,eval_top5,lr,images_per_second,seconds\n";
  for (const EpochMetrics& m : metrics) {
    text += fmt::format("{},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g},{:.6g}\n", m.epoch, m.train_loss,
                        m.train_top1, m.eval_loss, m.eval_top1, m.eval_top5, m.lr, m.images_per_second, m.seconds);
  }
  atomic_write_file(path_ + "/metrics.csv", text);
  if (metrics.empty()) return;
  Series train_loss{"train", {}, {}}, eval_loss{"test", {}, {}}, train_top1{"train", {}, {}}, eval_top1{"test", {}, {}};
  for (const EpochMetrics& m : metrics) {
    const auto epoch = static_cast<double>(m.epoch);
    for (auto [series, value] :
         {std::pair{&train_loss, m.train_loss}, std::pair{&eval_loss, m.eval_loss},
          std::pair{&train_top1, 100 * m.train_top1}, std::pair{&eval_top1, 100 * m.eval_top1}}) {
      series->x.push_back(epoch);
      series->y.push_back(value);
    }
  }
  std::error_code error;
  fs::create_directories(path_ + "/plots", error);
  if (error) throw io_error(path_ + "/plots", "create", error.value());
  const std::vector<Chart> panels = {
      {.title = "Loss", .x_label = "epoch", .y_label = "cross-entropy", .series = {train_loss, eval_loss}},
      {.title = "Accuracy", .x_label = "epoch", .y_label = "top-1 (%)", .series = {train_top1, eval_top1}}};
  atomic_write_file(path_ + "/plots/learning_curve.svg", render_svg(panels));
}

void RunDirectory::append_event(const std::string& json_line) {
  const std::string path = path_ + "/events.jsonl";
  if (events_.value() < 0) {
    events_ = FileDescriptor(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (events_.value() < 0) throw io_error(path, "open", errno);
  }
  const std::string line = json_line + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t wrote = ::write(events_.value(), line.data() + done, line.size() - done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) throw io_error(path, "write", errno);
    done += static_cast<size_t>(wrote);
  }
}

void RunDirectory::sync_events() {
  if (events_.value() >= 0 && ::fsync(events_.value()) != 0) throw io_error(path_ + "/events.jsonl", "sync", errno);
}

void RunDirectory::rewind_events(int64_t step, bool evaluation_pending) {
  events_.reset();
  const std::string path = path_ + "/events.jsonl";
  std::string kept;
  if (exists(path)) {
    std::istringstream lines(read_whole_file(path, kTextLimit));
    for (std::string line; std::getline(lines, line);) {
      const json event = json::parse(line, nullptr, false);
      // A line cut short by a kill, or of a step that will be done again, goes.
      if (!event.is_object() || !event.contains("step") || !event["step"].is_number_integer()) continue;
      const int64_t at = event["step"].get<int64_t>();
      const json split = event.value("split", json());
      const bool evaluates = split == "validation" || split == "test";
      const bool again = at > step || (at == step && evaluation_pending && evaluates);
      if (!again) kept += line + "\n";
    }
  }
  atomic_write_file(path, kept);
}

}  // namespace resnet

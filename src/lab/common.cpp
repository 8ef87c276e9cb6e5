#include "lab/common.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "runtime/backends.h"

namespace resnet {
namespace {

/// As a shell reads it back.
std::string shell_word(const std::string& text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || std::strchr("-_./,+:@%", c);
  };
  if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(std::min(line.find(':') + 2, line.size()));
  }
  return "unknown processor";
}

}  // namespace

std::string cifar_name(Kind kind, int64_t depth) {
  return kind == Kind::plain ? fmt::format("plain{}_cifar", depth) : fmt::format("resnet{}_cifar_a", depth);
}

std::string mlp_name(Kind kind, int64_t depth) {
  return fmt::format("{}{}_mlp", kind == Kind::plain ? "plain" : "resnet", depth);
}

std::string short_name(Kind kind, int64_t depth) {
  return fmt::format("{}-{}", kind == Kind::plain ? "plain" : "residual", depth);
}

int style_of(Kind kind, size_t variant) { return static_cast<int>(2 * variant) + (kind == Kind::plain ? 1 : 0); }

std::string Net::name() const {
  return batch_norm ? short_name(kind, depth) : fmt::format("{} without batch norm", short_name(kind, depth));
}

std::vector<Net> pairs_of_nets(const std::vector<int64_t>& depths, const std::string& batch_norm) {
  std::vector<Net> nets;
  for (const bool has_norm : {false, true}) {
    if (batch_norm == (has_norm ? "off" : "on")) continue;
    for (const int64_t depth : depths) {
      for (const Kind kind : {Kind::plain, Kind::residual}) nets.push_back({kind, depth, has_norm});
    }
  }
  return nets;
}

const char* with_batch_norm(bool batch_norm) { return batch_norm ? "with batch norm" : "without batch norm"; }

int64_t given_or(int64_t given, const LabConfig& config, int64_t full, int64_t quick) {
  return given > 0 ? given : config.quick ? quick : full;
}

SpecimenOptions specimen_options(const LabConfig& config, const std::string& model, int64_t batch_size,
                                 bool batch_norm) {
  ModelOptions options;
  options.batch_norm = batch_norm;
  if (!batch_norm) options.init = WeightInit::pytorch;
  return {.model = model,
          .model_options = options,
          .image_size = config.image_size,
          .batch_size = batch_size,
          .limit = config.limit,
          .seed = config.seed,
          .threads = config.threads,
          .backend = config.backend};
}

std::string command_of(const std::string& experiment, const LabConfig& c) {
  const LabConfig usual;
  std::string text = "resnet lab " + experiment;
  const auto& takes = find_experiment(experiment).takes;
  const auto taken = [&](const char* name) { return std::find(takes.begin(), takes.end(), name) != takes.end(); };
  const auto number = [&](const char* flag, int64_t value, int64_t default_value) {
    if (value != default_value) text += fmt::format(" {} {}", flag, value);
  };
  if (c.quick) text += " --quick";
  if (c.data != usual.data) text += " --data " + shell_word(c.data);
  if (taken("depths") && !c.depths.empty()) text += fmt::format(" --depths {}", fmt::join(c.depths, ","));
  if (taken("batch-norm") && c.batch_norm != usual.batch_norm) text += " --batch-norm " + c.batch_norm;
  if (taken("layers")) number("--layers", c.layers, 0);
  if (taken("steps")) number("--steps", c.steps, 0);
  if (taken("epochs")) number("--epochs", c.epochs, 0);
  if (taken("seeds")) number("--seeds", c.seeds, 0);
  number("--limit", c.limit, 0);
  number("--batch-size", c.batch_size, 0);
  number("--image-size", c.image_size, usual.image_size);
  number("--seed", c.seed, 0);
  number("--threads", c.threads, 0);
  if (c.backend != usual.backend) text += " --backend " + c.backend;
  return text;
}

void tell_warnings(Specimen& net, const LabObserver& observer) {
  for (const std::string& text : net.take_warnings()) {
    if (observer.on_warning) observer.on_warning(text);
  }
}

std::vector<std::string> notes_of(const LabConfig& config, double seconds, size_t peak_bytes) {
  const int64_t threads = config.threads > 0 ? config.threads : available_threads();
  std::vector<std::string> notes = {fmt::format("{}, {} {}, {}, {} backend", processor(), threads,
                                                threads == 1 ? "thread" : "threads", instruction_set(), config.backend),
                                    fmt::format("data: {} at {}x{} pixels; first seed {}", config.data,
                                                config.image_size, config.image_size, config.seed),
                                    fmt::format("{:.0f} seconds in all", seconds)};
  if (peak_bytes > 0) {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    notes.push_back(
        fmt::format("memory: {:.2f} GB planned for the largest net (values, arena, packed weights); the whole process "
                    "took {:.2f} GB at most, images and the programs themselves included",
                    static_cast<double>(peak_bytes) / 1e9, static_cast<double>(usage.ru_maxrss) * 1024 / 1e9));
  }
  return notes;
}

std::string without_norm_note() {
  return "without batch norm weights start as U(-1/sqrt(fan in), 1/sqrt(fan in)), PyTorch's default; Kaiming's scale, "
         "made so that gradients keep their size in a plain net, is not what is measured here";
}

std::string optimizer_note(const SpecimenOptions& options) {
  return fmt::format("SGD with momentum {}, weight decay {:.0e}", options.momentum, options.weight_decay);
}

std::vector<double> smoothed(const std::vector<double>& values, size_t width) {
  std::vector<double> means;
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t count = std::min(i + 1, width);
    double sum = 0;
    for (size_t k = i + 1 - count; k <= i; ++k) sum += values[k];
    means.push_back(sum / static_cast<double>(count));
  }
  return means;
}

Series gradient_curve(const std::string& name, const LayerGradients& gradients, int style) {
  Series curve{name, {}, {}, {}, {}, style};
  const size_t layers = gradients.layers.size();
  for (size_t i = 0; i < layers; ++i) {
    curve.x.push_back(static_cast<double>(i) / static_cast<double>(layers - 1));
    curve.y.push_back(gradients.layers[i].weight);
  }
  return curve;
}

std::vector<double> count_from(double first, size_t size) {
  std::vector<double> x(size);
  for (size_t i = 0; i < size; ++i) x[i] = first + static_cast<double>(i);
  return x;
}

}  // namespace resnet

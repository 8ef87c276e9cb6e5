#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <sstream>
#include <type_traits>
#include <utility>
#include <variant>

#include <toml++/toml.h>

#include "base/error.h"
#include "passes/pipeline.h"

namespace resnet {
namespace {

using Integers = std::vector<int64_t>;
using Numbers = std::vector<double>;
using Member = std::variant<std::string TrainConfig::*, int64_t TrainConfig::*, double TrainConfig::*,
                            bool TrainConfig::*, Integers TrainConfig::*, Numbers TrainConfig::*>;

struct Setting {
  const char* key;
  Member member;
};

/// The one list of settings: printing, parsing and comparing all walk it.
const std::vector<Setting>& settings() {
  static const std::vector<Setting> list = {
      {"model", &TrainConfig::model},
      {"data", &TrainConfig::data},
      {"channels", &TrainConfig::channels},
      {"on_bad_sample", &TrainConfig::on_bad_sample},
      {"image_size", &TrainConfig::image_size},
      {"resize", &TrainConfig::resize},
      {"resize_size", &TrainConfig::resize_size},
      {"crop_pct", &TrainConfig::crop_pct},
      {"interpolation", &TrainConfig::interpolation},
      {"mean", &TrainConfig::mean},
      {"std", &TrainConfig::std},
      {"exif_orientation", &TrainConfig::exif_orientation},
      {"epochs", &TrainConfig::epochs},
      {"batch_size", &TrainConfig::batch_size},
      {"lr", &TrainConfig::lr},
      {"lr_scheduler", &TrainConfig::lr_scheduler},
      {"lr_step_size", &TrainConfig::lr_step_size},
      {"lr_gamma", &TrainConfig::lr_gamma},
      {"lr_milestones", &TrainConfig::lr_milestones},
      {"lr_warmup_epochs", &TrainConfig::lr_warmup_epochs},
      {"lr_warmup_method", &TrainConfig::lr_warmup_method},
      {"lr_warmup_decay", &TrainConfig::lr_warmup_decay},
      {"momentum", &TrainConfig::momentum},
      {"nesterov", &TrainConfig::nesterov},
      {"weight_decay", &TrainConfig::weight_decay},
      {"label_smoothing", &TrainConfig::label_smoothing},
      {"random_crop_padding", &TrainConfig::random_crop_padding},
      {"hflip_prob", &TrainConfig::hflip_prob},
      {"seed", &TrainConfig::seed},
      {"threads", &TrainConfig::threads},
      {"workers", &TrainConfig::workers},
      {"shuffle", &TrainConfig::shuffle},
      {"limit", &TrainConfig::limit},
      {"max_steps", &TrainConfig::max_steps},
      {"log_every", &TrainConfig::log_every},
      {"checkpoint_every", &TrainConfig::checkpoint_every},
      {"backend", &TrainConfig::backend},
      {"precision", &TrainConfig::precision},
      {"weights", &TrainConfig::weights},
      {"reset_head", &TrainConfig::reset_head},
      {"disabled_passes", &TrainConfig::disabled_passes},
      {"model.stem_padding", &TrainConfig::stem_padding},
      {"model.batch_norm", &TrainConfig::batch_norm},
      {"model.zero_init_residual", &TrainConfig::zero_init_residual},
      {"model.init", &TrainConfig::init},
      {"model.blocks", &TrainConfig::blocks},
      {"model.drop_path", &TrainConfig::drop_path},
  };
  return list;
}

const Setting& find_setting(const std::string& key, const std::string& where) {
  std::vector<std::string> names;
  for (const Setting& setting : settings()) {
    if (key == setting.key) return setting;
    names.emplace_back(setting.key);
  }
  throw UserError("{}: unknown setting '{}'; nearest: {}", where, escape_control(key), nearest_names(key, names));
}

std::string quoted(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}

std::string number_text(double number) {
  const std::string text = fmt::format("{}", number);
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string value_text(const TrainConfig& config, const Member& member) {
  return std::visit(
      [&](auto pointer) -> std::string {
        using T = std::remove_cvref_t<decltype(config.*pointer)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return quoted(config.*pointer);
        } else if constexpr (std::is_same_v<T, double>) {
          return number_text(config.*pointer);
        } else if constexpr (std::is_same_v<T, Numbers>) {
          std::vector<std::string> texts;
          for (const double number : config.*pointer) texts.push_back(number_text(number));
          return fmt::format("[{}]", fmt::join(texts, ", "));
        } else if constexpr (std::is_same_v<T, Integers>) {
          return fmt::format("[{}]", fmt::join(config.*pointer, ", "));
        } else {
          return fmt::format("{}", config.*pointer);
        }
      },
      member);
}

/// Each dot of a dotted key is a table inside a table, which the parser makes and frees by recursion: enough of them
/// overflow the stack.
void check_depth(const std::string& where, const std::string& text) {
  constexpr std::ptrdiff_t kMostDots = 1000;
  const auto dots = std::count(text.begin(), text.end(), '.');
  if (dots > kMostDots)
    throw UserError("{}: holds {} dots; expected settings, with at most {}", where, dots, kMostDots);
}

void apply_node(const toml::node& node, const Setting& setting, const std::string& where, TrainConfig& config) {
  auto wrong = [&](const char* expected) {
    throw UserError("{}: '{}' has the wrong type; expected {}", where, setting.key, expected);
  };
  std::visit(
      [&](auto pointer) {
        using T = std::remove_cvref_t<decltype(config.*pointer)>;
        if constexpr (std::is_same_v<T, std::string>) {
          if (!node.is_string()) wrong("a string");
          config.*pointer = node.as_string()->get();
        } else if constexpr (std::is_same_v<T, bool>) {
          if (!node.is_boolean()) wrong("true or false");
          config.*pointer = node.as_boolean()->get();
        } else if constexpr (std::is_same_v<T, int64_t>) {
          if (!node.is_integer()) wrong("an integer");
          config.*pointer = node.as_integer()->get();
        } else if constexpr (std::is_same_v<T, Integers>) {
          if (!node.is_array()) wrong("a list of integers");
          Integers values;
          for (const toml::node& element : *node.as_array()) {
            if (!element.is_integer()) wrong("a list of integers");
            values.push_back(element.as_integer()->get());
          }
          config.*pointer = std::move(values);
        } else if constexpr (std::is_same_v<T, Numbers>) {
          if (!node.is_array()) wrong("a list of numbers");
          Numbers values;
          for (const toml::node& element : *node.as_array()) {
            const auto number = element.value<double>();  // of a whole number too
            if (!number || !element.is_number()) wrong("a list of numbers");
            values.push_back(number.value_or(0));
          }
          config.*pointer = std::move(values);
        } else {
          if (node.is_integer()) {
            config.*pointer = static_cast<double>(node.as_integer()->get());
          } else {
            if (!node.is_floating_point()) wrong("a number");
            config.*pointer = node.as_floating_point()->get();
          }
        }
      },
      setting.member);
}

/// Adds the settings' names to `given`.
void apply_table(const toml::table& table, const std::string& prefix, const std::string& where, TrainConfig& config,
                 std::set<std::string>& given) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    // `model` is both a setting and, as a table, the home of model.stem_padding and its like.
    if (const toml::table* inner = node.as_table()) {
      apply_table(*inner, name + ".", where, config, given);
    } else {
      apply_node(node, find_setting(name, where), where, config);
      given.insert(name);
    }
  }
}

void require(bool ok, const char* flag, const std::string& came, const char* expected) {
  if (!ok) throw UserError("{}: {}; expected {}", flag, came, expected);
}

}  // namespace

void validate(const TrainConfig& c) {
  auto integer = [](int64_t value, int64_t low, int64_t high, const char* flag, const char* expected) {
    require(value >= low && value <= high, flag, std::to_string(value), expected);
  };
  auto number = [](double value, bool ok, const char* flag, const char* expected) {
    require(std::isfinite(value) && ok, flag, fmt::format("{}", value), expected);
  };
  integer(c.image_size, 1, 8192, "--image-size", "1 to 8192 pixels");
  require(c.channels == 0 || c.channels == 1 || c.channels == 3, "--channels", std::to_string(c.channels),
          "1 (grey), 3 (RGB) or 0 (the data's own)");
  require(c.on_bad_sample == "stop" || c.on_bad_sample == "skip", "--on-bad-sample",
          "'" + escape_control(c.on_bad_sample) + "'", "stop or skip");
  integer(c.resize_size, 0, kMaxImageSize, "--resize-size", "0 (as --crop-pct says) to 8192 pixels");
  number(c.crop_pct, c.crop_pct > 0 && c.crop_pct <= 1, "--crop-pct", "a number above 0, at most 1");
  require(c.resize_size == 0 || c.crop_pct == 1, "--crop-pct", "given beside --resize-size", "one of them");
  for (const double mean : c.mean) number(static_cast<float>(mean), true, "--mean", "finite numbers");
  for (const double deviation : c.std) {
    const auto value = static_cast<float>(deviation);
    number(value, value != 0, "--std", "finite numbers, not 0");
  }
  validate(preprocessing(c), static_cast<int64_t>(std::max(c.mean.size(), c.std.size())));
  integer(c.epochs, 1, 1000000, "--epochs", "1 to 1000000");
  integer(c.batch_size, 1, 65536, "--batch-size", "1 to 65536 images");
  number(c.lr, c.lr >= 0, "--lr", "a finite number, 0 or more");
  number(c.momentum, c.momentum >= 0 && c.momentum < 1, "--momentum", "a number in [0, 1)");
  number(c.weight_decay, c.weight_decay >= 0, "--weight-decay", "a finite number, 0 or more");
  number(c.label_smoothing, c.label_smoothing >= 0 && c.label_smoothing < 1, "--label-smoothing", "a number in [0, 1)");
  require(!c.nesterov || c.momentum > 0, "--nesterov", "momentum is 0", "--momentum above 0 with it");
  require(c.lr_scheduler == "constant" || c.lr_scheduler == "cosineannealinglr" || c.lr_scheduler == "steplr" ||
              c.lr_scheduler == "multisteplr",
          "--lr-scheduler", "'" + escape_control(c.lr_scheduler) + "'",
          "constant, cosineannealinglr, steplr or multisteplr");
  integer(c.lr_step_size, 1, 1000000, "--lr-step-size", "1 to 1000000 epochs");
  number(c.lr_gamma, c.lr_gamma >= 0 && c.lr_gamma <= 1, "--lr-gamma", "a number in [0, 1]");
  int64_t earlier = 0;
  for (const int64_t milestone : c.lr_milestones) {
    integer(milestone, earlier + 1, 1000000, "--lr-milestones",
            "epochs from 1 to 1000000, each later than the one before");
    earlier = milestone;
  }
  require(c.lr_milestones.empty() || c.lr_scheduler == "multisteplr", "--lr-milestones",
          "the scheduler is " + c.lr_scheduler, "--lr-scheduler multisteplr with it");
  require(!c.lr_milestones.empty() || c.lr_scheduler != "multisteplr", "--lr-scheduler", "multisteplr alone",
          "--lr-milestones with it, e.g. 82,123");
  number(c.lr_warmup_epochs, c.lr_warmup_epochs >= 0 && c.lr_warmup_epochs <= static_cast<double>(c.epochs),
         "--lr-warmup-epochs", "0 (none) or more, no more than --epochs");
  require(c.lr_warmup_method == "constant" || c.lr_warmup_method == "linear", "--lr-warmup-method",
          "'" + escape_control(c.lr_warmup_method) + "'", "constant or linear");
  number(c.lr_warmup_decay, c.lr_warmup_decay >= 0 && c.lr_warmup_decay <= 1, "--lr-warmup-decay",
         "a number in [0, 1]");
  integer(c.random_crop_padding, 0, c.image_size - 1, "--random-crop-padding",
          "0 (off) or more pixels, fewer than --image-size");
  number(c.hflip_prob, c.hflip_prob >= 0 && c.hflip_prob <= 1, "--hflip-prob", "a number in [0, 1]");
  integer(c.seed, 0, INT64_MAX, "--seed", "0 or more");
  integer(c.threads, 0, 1024, "--threads", "0 (all) to 1024");
  integer(c.workers, 0, 64, "--workers", "0 to 64");
  integer(c.limit, 0, INT64_MAX, "--limit", "0 (all) or more images");
  integer(c.max_steps, 0, INT64_MAX, "--max-steps", "0 (no limit) or more");
  integer(c.log_every, 1, INT64_MAX, "--log-every", "1 or more steps");
  integer(c.checkpoint_every, 0, INT64_MAX, "--checkpoint-every", "0 (each epoch) or more steps");
  integer(c.stem_padding, 0, 6, "--set model.stem_padding", "0 to 6 pixels");
  static_cast<void>(model_options(c));
  require(c.backend == "cpu" || c.backend == "reference", "--backend", "'" + escape_control(c.backend) + "'",
          "cpu or reference");
  require(c.precision == "f32" || c.precision == "f64", "--precision", "'" + escape_control(c.precision) + "'",
          "f32 or f64");
  require(c.precision == "f32" || c.backend == "reference", "--precision", "f64 on the cpu backend",
          "f32 there; f64 runs with --backend reference");
  const auto passes = pass_names();
  if (c.reset_head && c.weights.empty())
    throw UserError(
        "--reset-head: there are no weights whose classifier to replace; expected --weights FILE beside it");
  for (const std::string& name : disabled_passes(c)) {
    if (std::find(passes.begin(), passes.end(), name) == passes.end()) {
      throw UserError("--disable-pass: unknown pass '{}'; nearest: {}", escape_control(name),
                      nearest_names(name, passes));
    }
  }
}

Preprocessing preprocessing(const TrainConfig& config) {
  Preprocessing p{.image_size = config.image_size,
                  .resize = parse_resize_rule(config.resize),
                  .resize_size = config.resize_size,
                  .crop_pct = config.crop_pct,
                  .interpolation = parse_interpolation(config.interpolation),
                  .mean = {config.mean.begin(), config.mean.end()},
                  .std = {config.std.begin(), config.std.end()},
                  .exif_orientation = config.exif_orientation};
  // Readers of the model file that know crop_pct alone should do nearly the same.
  if (p.resize_size > p.image_size) {
    p.crop_pct = static_cast<double>(p.image_size) / static_cast<double>(p.resize_size);
  }
  return p;
}

ModelOptions model_options(const TrainConfig& config) {
  ModelOptions options{.stem_padding = config.stem_padding,
                       .batch_norm = config.batch_norm,
                       .zero_init_residual = config.zero_init_residual};
  set_option("init", config.init, options);
  if (!config.blocks.empty()) set_option("blocks", fmt::format("{}", fmt::join(config.blocks, ", ")), options);
  set_option("drop_path", fmt::format("{}", config.drop_path), options);
  return options;
}

std::string to_toml(const TrainConfig& config) {
  std::string text = "# Every setting of this run; `resnet train --config FILE` trains so again.\n";
  for (const Setting& setting : settings()) {
    const std::string key = setting.key;
    const std::string written = key.find('.') == std::string::npos ? key : '"' + key + '"';
    text += fmt::format("{} = {}\n", written, value_text(config, setting.member));
  }
  return text;
}

std::set<std::string> apply_toml(const std::string& path, const std::string& text, TrainConfig& config) {
  check_depth(path, text);
  toml::table table;
  try {
    table = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    throw UserError("{}: line {}, column {}: {}", path, error.source().begin.line, error.source().begin.column,
                    escape_control(std::string(error.description())));
  }
  std::set<std::string> given;
  apply_table(table, "", path, config, given);
  return given;
}

std::string apply_setting(const std::string& assignment, TrainConfig& config) {
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    throw UserError("--set: '{}'; expected key=value", escape_control(assignment));
  }
  const std::string key = assignment.substr(0, equals);
  const std::string value = assignment.substr(equals + 1);
  const Setting& setting = find_setting(key, "--set");
  std::string written = value;
  if (std::holds_alternative<std::string TrainConfig::*>(setting.member)) {
    if (!value.starts_with('"')) written = quoted(value);
  } else if (std::holds_alternative<Integers TrainConfig::*>(setting.member) ||
             std::holds_alternative<Numbers TrainConfig::*>(setting.member)) {
    if (!value.starts_with('[')) written = '[' + value + ']';
  }
  check_depth("--set " + key, value);
  toml::table table;
  try {
    table = toml::parse("value = " + written);
  } catch (const toml::parse_error&) {
    throw UserError("--set {}: '{}' is no value; expected a number, true, false, text or a list", key,
                    escape_control(value));
  }
  const toml::node* node = table.get("value");
  if (node == nullptr || table.size() != 1) {
    throw UserError("--set {}: '{}' is more than one value; expected one, and a --set for each setting", key,
                    escape_control(value));
  }
  apply_node(*node, setting, "--set", config);
  return key;
}

void reset_the_resize_not_given(const std::set<std::string>& given, TrainConfig& config) {
  const bool size = given.contains("resize_size"), share = given.contains("crop_pct");
  if (size && !share) config.crop_pct = TrainConfig{}.crop_pct;
  if (share && !size) config.resize_size = TrainConfig{}.resize_size;
}

std::vector<std::string> differences(const TrainConfig& now, const TrainConfig& before) {
  std::vector<std::string> list;
  for (const Setting& setting : settings()) {
    const std::string is = value_text(now, setting.member);
    const std::string was = value_text(before, setting.member);
    if (is != was) list.push_back(fmt::format("{}: {}, was {}", setting.key, is, was));
  }
  return list;
}

std::set<std::string> disabled_passes(const TrainConfig& config) {
  std::set<std::string> names;
  std::istringstream text(config.disabled_passes);
  for (std::string name; std::getline(text, name, ',');) names.insert(name);
  return names;
}

double learning_rate(const TrainConfig& config, int64_t step, int64_t steps_per_epoch) {
  check(steps_per_epoch >= 1, "learning_rate: an epoch without steps");
  const int64_t warmup = std::llround(config.lr_warmup_epochs * static_cast<double>(steps_per_epoch));
  if (step < warmup) {
    const bool is_linear = config.lr_warmup_method == "linear";
    const double progress = is_linear ? static_cast<double>(step) / static_cast<double>(warmup) : 0;
    return config.lr * (config.lr_warmup_decay + (1 - config.lr_warmup_decay) * progress);
  }
  const int64_t s = step - warmup;
  if (config.lr_scheduler == "cosineannealinglr") {
    const int64_t steps = std::max<int64_t>(config.epochs * steps_per_epoch - warmup, 1);  // the warm-up may be all
    const double progress = static_cast<double>(s) / static_cast<double>(steps);
    return config.lr * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  int64_t decays = 0;
  if (config.lr_scheduler == "steplr") {
    decays = s / (config.lr_step_size * steps_per_epoch);
  } else if (config.lr_scheduler == "multisteplr") {
    decays = std::count_if(config.lr_milestones.begin(), config.lr_milestones.end(),
                           [&](int64_t milestone) { return milestone * steps_per_epoch <= s; });
  }
  return config.lr * std::pow(config.lr_gamma, static_cast<double>(decays));
}

}  // namespace resnet

#include "models/registry.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "models/cifar.h"
#include "models/lecture.h"
#include "models/mlp.h"
#include "models/torchvision.h"

namespace resnet {
namespace {

int64_t classes_of(const ModelOptions& options, int64_t usual) {
  return options.num_classes > 0 ? options.num_classes : usual;
}

ModelSpec lecture_model() {
  return {"lecture_resnet18",
          "the lecture's: biases, shortcut without batch norm",
          {1, 96, 96},
          10,
          [](Scope s, Value x, const ModelOptions& options) {
            return lecture::resnet18(s, x,
                                     {.num_classes = classes_of(options, 10), .stem_padding = options.stem_padding});
          },
          {"stem_padding"}};
}

ModelSpec torchvision_model(const char* name, const char* summary, torchvision::Block block,
                            std::array<int64_t, 4> depths, torchvision::BottleneckOptions bottleneck = {}) {
  return {name, summary, {3, 224, 224}, 1000, [=](Scope s, Value x, const ModelOptions& options) {
            return torchvision::resnet(
                s, x,
                {.block = block, .depths = depths, .bottleneck = bottleneck, .num_classes = classes_of(options, 1000)});
          }};
}

/// What a net can be asked for: a plain one has no residual to start from nothing.
std::vector<std::string> deep_options(bool residual) {
  return residual ? std::vector<std::string>{"batch_norm", "zero_init_residual", "init"}
                  : std::vector<std::string>{"batch_norm", "init"};
}

ModelSpec cifar_model(int64_t depth, cifar::Shortcut shortcut) {
  const bool residual = shortcut != cifar::Shortcut::none;
  const char* suffix = shortcut == cifar::Shortcut::pad ? "_a" : shortcut == cifar::Shortcut::project ? "_b" : "";
  const char* summary = shortcut == cifar::Shortcut::pad       ? "He et al.'s for CIFAR, padded shortcuts"
                        : shortcut == cifar::Shortcut::project ? "He et al.'s for CIFAR, projected shortcuts"
                                                               : "He et al.'s for CIFAR, without shortcuts";
  return {fmt::format("{}{}_cifar{}", residual ? "resnet" : "plain", depth, suffix),
          summary,
          {3, 32, 32},
          10,
          [=](Scope s, Value x, const ModelOptions& options) {
            return cifar::resnet(s, x,
                                 {.depth = depth,
                                  .shortcut = shortcut,
                                  .num_classes = classes_of(options, 10),
                                  .batch_norm = options.batch_norm,
                                  .zero_init_residual = options.zero_init_residual,
                                  .init = options.init});
          },
          deep_options(residual)};
}

ModelSpec mlp_model(int64_t depth, bool residual) {
  return {fmt::format("{}{}_mlp", residual ? "resnet" : "plain", depth),
          residual ? "linear layers of 128, with shortcuts" : "linear layers of 128, without shortcuts",
          {1, 28, 28},
          10,
          [=](Scope s, Value x, const ModelOptions& options) {
            return mlp::resnet(s, x,
                               {.depth = depth,
                                .shortcut = residual,
                                .num_classes = classes_of(options, 10),
                                .batch_norm = options.batch_norm,
                                .zero_init_residual = options.zero_init_residual,
                                .init = options.init});
          },
          deep_options(residual)};
}

/// Takes `part` off the front of `text`; false when it does not start so.
bool take(std::string_view& text, std::string_view part) {
  if (!text.starts_with(part)) return false;
  text.remove_prefix(part.size());
  return true;
}

/// A name like resnet20_cifar_a, taken apart.
struct FamilyName {
  static constexpr int64_t kDeepest = 10000;  ///< a name may come from a file, and must not make us build any graph
  bool residual;
  int64_t depth;
  std::string_view rest;  ///< "_cifar_a"
};

std::optional<FamilyName> parse_family(std::string_view name) {
  FamilyName parsed{take(name, "resnet"), 0, {}};
  if (!parsed.residual && !take(name, "plain")) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), parsed.depth);
  if (error != std::errc() || name[0] == '-' || name[0] == '0') return std::nullopt;
  parsed.rest = name.substr(static_cast<size_t>(end - name.data()));
  return parsed;
}

/// The family's nearest depths that are `step` * n + 2.
void check_depth(const std::string& name, const FamilyName& parsed, int64_t step, const char* why) {
  if (parsed.depth > FamilyName::kDeepest) {
    throw UserError("model '{}': depth {}; expected {} at most", name, parsed.depth, FamilyName::kDeepest);
  }
  if (parsed.depth >= step + 2 && (parsed.depth - 2) % step == 0) return;
  const int64_t below = std::max<int64_t>(1, (parsed.depth - 2) / step) * step + 2;
  throw UserError("model '{}': depth {} is not {}n + 2 with n = 1 or more ({}); nearest: {} and {}", name, parsed.depth,
                  step, why, below, below + step);
}

/// The model of a family, of any depth; none when the name is not of one.
std::optional<ModelSpec> family_model(const std::string& name) {
  const std::optional<FamilyName> parsed = parse_family(name);
  if (!parsed) return std::nullopt;
  const auto [residual, depth, rest] = *parsed;
  using cifar::Shortcut;
  std::optional<Shortcut> shortcut;
  if (!residual && rest == "_cifar") shortcut = Shortcut::none;
  if (residual && (rest == "_cifar" || rest == "_cifar_a")) shortcut = Shortcut::pad;
  if (residual && rest == "_cifar_b") shortcut = Shortcut::project;
  if (shortcut) {
    check_depth(name, *parsed, 6, "three stages of n blocks of two convolutions, a stem and a classifier");
    return cifar_model(depth, *shortcut);
  }
  if (rest != "_mlp") return std::nullopt;
  check_depth(name, *parsed, 2, "n blocks of two linear layers, one before and one after them");
  return mlp_model(depth, residual);
}

std::vector<ModelSpec> make_models() {
  using cifar::Shortcut;
  using torchvision::Block;
  constexpr std::array<int64_t, 4> k50{3, 4, 6, 3}, k101{3, 4, 23, 3}, k152{3, 8, 36, 3};
  constexpr const char *kUsual = "torchvision's, v1.5", *kPaper = "the paper's, v1: stride on the first 1x1";
  constexpr const char *kGrouped = "torchvision's, grouped 3x3 convolutions", *kWide = "torchvision's, twice as wide";
  constexpr torchvision::BottleneckOptions kV1{.stride_on = torchvision::Stride::conv1};
  std::vector<ModelSpec> models = {
      lecture_model(),
      torchvision_model("resnet18", kUsual, Block::basic, {2, 2, 2, 2}),
      torchvision_model("resnet34", kUsual, Block::basic, {3, 4, 6, 3}),
      torchvision_model("resnet50", kUsual, Block::bottleneck, k50),
      torchvision_model("resnet101", kUsual, Block::bottleneck, k101),
      torchvision_model("resnet152", kUsual, Block::bottleneck, k152),
      torchvision_model("resnet50_v1", kPaper, Block::bottleneck, k50, kV1),
      torchvision_model("resnet101_v1", kPaper, Block::bottleneck, k101, kV1),
      torchvision_model("resnet152_v1", kPaper, Block::bottleneck, k152, kV1),
      torchvision_model("resnext50_32x4d", kGrouped, Block::bottleneck, k50, {.groups = 32, .width_per_group = 4}),
      torchvision_model("resnext101_32x8d", kGrouped, Block::bottleneck, k101, {.groups = 32, .width_per_group = 8}),
      torchvision_model("resnext101_64x4d", kGrouped, Block::bottleneck, k101, {.groups = 64, .width_per_group = 4}),
      torchvision_model("wide_resnet50_2", kWide, Block::bottleneck, k50, {.width_per_group = 128}),
      torchvision_model("wide_resnet101_2", kWide, Block::bottleneck, k101, {.width_per_group = 128}),
  };
  for (const Shortcut shortcut : {Shortcut::pad, Shortcut::project, Shortcut::none}) {
    for (const int64_t depth : {20, 32, 44, 56, 110, 1202}) models.push_back(cifar_model(depth, shortcut));
  }
  for (const bool residual : {true, false}) {
    for (const int64_t depth : {20, 56, 110}) models.push_back(mlp_model(depth, residual));
  }
  return models;
}

constexpr const char* kOptionNames[] = {"stem_padding", "batch_norm", "zero_init_residual", "init"};

bool truth_of(const std::string& name, const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  throw UserError("model.{}: '{}'; expected true or false", name, escape_control(text));
}

}  // namespace

const std::vector<ModelSpec>& all_models() {
  static const std::vector<ModelSpec> models = make_models();
  return models;
}

ModelSpec find_model(const std::string& name) {
  std::vector<std::string> names;
  for (const ModelSpec& model : all_models()) {
    if (model.name == name) return model;
    names.push_back(model.name);
  }
  if (const std::optional<ModelSpec> model = family_model(name)) return *model;
  throw UserError("model '{}' is unknown; nearest: {}; `resnet summary --list` shows all", escape_control(name),
                  nearest_names(name, names));
}

const char* name_of(WeightInit init) {
  switch (init) {
    case WeightInit::xavier: return "xavier";
    case WeightInit::kaiming: return "kaiming";
    case WeightInit::pytorch: return "pytorch";
  }
  throw InternalError("unknown initialisation");
}

std::map<std::string, std::string> changed_options(const ModelOptions& options) {
  const ModelOptions usual;
  std::map<std::string, std::string> changed;
  if (options.stem_padding != usual.stem_padding) changed["stem_padding"] = std::to_string(options.stem_padding);
  if (options.batch_norm != usual.batch_norm) changed["batch_norm"] = options.batch_norm ? "true" : "false";
  if (options.zero_init_residual != usual.zero_init_residual)
    changed["zero_init_residual"] = options.zero_init_residual ? "true" : "false";
  if (options.init != usual.init) changed["init"] = name_of(options.init);
  return changed;
}

void set_option(const std::string& name, const std::string& text, ModelOptions& options) {
  if (name == "stem_padding") {
    int64_t padding = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), padding);
    if (error != std::errc() || end != text.data() + text.size() || padding < 0 || padding > 6)
      throw UserError("model.stem_padding: '{}'; expected 0 to 6 pixels", escape_control(text));
    options.stem_padding = padding;
  } else if (name == "batch_norm") {
    options.batch_norm = truth_of(name, text);
  } else if (name == "zero_init_residual") {
    options.zero_init_residual = truth_of(name, text);
  } else if (name == "init") {
    for (const WeightInit init : {WeightInit::kaiming, WeightInit::pytorch, WeightInit::xavier}) {
      if (text != name_of(init)) continue;
      options.init = init;
      return;
    }
    throw UserError("model.init: '{}'; expected kaiming, pytorch or xavier", escape_control(text));
  } else {
    throw UserError("model.{}: no such option; expected one of {}", escape_control(name),
                    fmt::join(kOptionNames, ", "));
  }
}

void check_options(const ModelSpec& model, const ModelOptions& options) {
  for (const auto& [name, value] : changed_options(options)) {
    if (std::find(model.options.begin(), model.options.end(), name) != model.options.end()) continue;
    const std::string takes = model.options.empty()
                                  ? "it has no options"
                                  : fmt::format("it takes model.{}", fmt::join(model.options, ", model."));
    throw UserError("model '{}' does not take model.{} (given: {}); {}; leave it out, or choose another model",
                    model.name, name, value, takes);
  }
  if (options.zero_init_residual && !options.batch_norm) {
    throw UserError(
        "model '{}': model.zero_init_residual starts a batch norm's gamma at 0, and with model.batch_norm=false there "
        "is none; set only one of them",
        model.name);
  }
}

Value build_model(const ModelSpec& model, Scope s, Value x, const ModelOptions& options) {
  check_options(model, options);
  return model.build(s, x, options);
}

}  // namespace resnet

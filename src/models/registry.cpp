#include "models/registry.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "models/cifar.h"
#include "models/lecture.h"
#include "models/mlp.h"
#include "models/preact.h"
#include "models/timm.h"
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

using Blocks = std::vector<int64_t>;

Blocks blocks_of(const ModelOptions& options, const Blocks& usual) {
  return options.blocks.empty() ? usual : options.blocks.list();
}

ModelSpec torchvision_model(const char* name, const char* summary, torchvision::Block block, const Blocks& blocks,
                            torchvision::BottleneckOptions bottleneck = {}) {
  return {name,
          summary,
          {3, 224, 224},
          1000,
          [=](Scope s, Value x, const ModelOptions& options) {
            return torchvision::resnet(s, x,
                                       {.block = block,
                                        .blocks = blocks_of(options, blocks),
                                        .bottleneck = bottleneck,
                                        .num_classes = classes_of(options, 1000),
                                        .zero_init_residual = options.zero_init_residual,
                                        .drop_path = options.drop_path});
          },
          {"zero_init_residual", "blocks", "drop_path"},
          UsualPhotos{}};
}

ModelSpec timm_model(const char* name, const char* summary, const timm::Architecture& usual,
                     const UsualPhotos& photos = {.interpolation = "bicubic"}) {
  return {name,
          summary,
          {3, 224, 224},
          1000,
          [=](Scope s, Value x, const ModelOptions& options) {
            timm::Architecture a = usual;
            a.blocks = blocks_of(options, usual.blocks);
            a.options.zero_init = options.zero_init_residual;
            a.options.drop_path = options.drop_path;
            a.num_classes = classes_of(options, 1000);
            return timm::resnet(s, x, a);
          },
          {"zero_init_residual", "blocks", "drop_path"},
          photos};
}

ModelSpec resnetv2_model(const char* name, const Blocks& blocks) {
  return {
      name,
      "timm's, pre-activation",
      {3, 224, 224},
      1000,
      [=](Scope s, Value x, const ModelOptions& options) {
        return preact::resnetv2(s, x,
                                {.blocks = blocks_of(options, blocks),
                                 .num_classes = classes_of(options, 1000),
                                 .drop_path = options.drop_path});
      },
      {"blocks", "drop_path"},
      UsualPhotos{.crop_pct = 0.95, .interpolation = "bicubic", .mean = {0.5f, 0.5f, 0.5f}, .std = {0.5f, 0.5f, 0.5f}}};
}

ModelSpec preresnet_model(int64_t depth) {
  return {fmt::format("preresnet{}_cifar", depth),
          "He et al.'s for CIFAR, pre-activation",
          {3, 32, 32},
          10,
          [=](Scope s, Value x, const ModelOptions& options) {
            return preact::resnet_cifar(s, x,
                                        {.blocks = blocks_of(options, Blocks(3, (depth - 2) / 9)),
                                         .num_classes = classes_of(options, 10),
                                         .drop_path = options.drop_path});
          },
          {"blocks", "drop_path"}};
}

ModelSpec wide_model(int64_t depth, int64_t width) {
  return {fmt::format("wrn{}_{}_cifar", depth, width),
          "wide, pre-activation (Zagoruyko and Komodakis)",
          {3, 32, 32},
          10,
          [=](Scope s, Value x, const ModelOptions& options) {
            return preact::wide_resnet_cifar(s, x,
                                             {.blocks = blocks_of(options, Blocks(3, (depth - 4) / 6)),
                                              .width = width,
                                              .num_classes = classes_of(options, 10),
                                              .drop_path = options.drop_path});
          },
          {"blocks", "drop_path"}};
}

/// What a CIFAR net can be asked for: a plain one has no residual to start from nothing, and no branch to drop.
std::vector<std::string> cifar_options(bool residual) {
  return residual ? std::vector<std::string>{"batch_norm", "zero_init_residual", "init", "blocks", "drop_path"}
                  : std::vector<std::string>{"batch_norm", "init", "blocks"};
}

std::vector<std::string> mlp_options(bool residual) {
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
                                  .blocks = options.blocks.list(),
                                  .shortcut = shortcut,
                                  .num_classes = classes_of(options, 10),
                                  .batch_norm = options.batch_norm,
                                  .zero_init_residual = options.zero_init_residual,
                                  .init = options.init,
                                  .drop_path = options.drop_path});
          },
          cifar_options(residual)};
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
          mlp_options(residual)};
}

/// Takes `part` off the front of `text`; false when it does not start so.
bool take(std::string_view& text, std::string_view part) {
  if (!text.starts_with(part)) return false;
  text.remove_prefix(part.size());
  return true;
}

/// The positive number that `text` starts with, taken off its front; none when it starts with none.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || text[0] == '-' || text[0] == '0') return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

/// Which depths a family has: step * n + first.
struct Depths {
  int64_t step, first;
  const char* why;
};

/// Throws UserError with the family's nearest depths.
void check_depth(const std::string& name, int64_t depth, const Depths& depths) {
  constexpr int64_t kDeepest = 10000;  // a name may come from a file, and must not make us build any graph
  if (depth > kDeepest) throw UserError("model '{}': depth {}; expected {} at most", name, depth, kDeepest);
  const auto& [step, first, why] = depths;
  if (depth >= step + first && (depth - first) % step == 0) return;
  const int64_t below = std::max<int64_t>(1, (depth - first) / step) * step + first;
  throw UserError("model '{}': depth {} is not {}n + {} with n = 1 or more ({}); nearest: {} and {}", name, depth, step,
                  first, why, below, below + step);
}

/// "preresnet164_cifar", "wrn28_10_cifar".
std::optional<ModelSpec> preactivation_family_model(const std::string& name) {
  std::string_view rest = name;
  if (take(rest, "preresnet")) {
    const std::optional<int64_t> depth = take_number(rest);
    if (!depth || rest != "_cifar") return std::nullopt;
    check_depth(name, *depth, {9, 2, "three stages of n blocks of three convolutions, a stem and a classifier"});
    return preresnet_model(*depth);
  }
  if (!take(rest, "wrn")) return std::nullopt;
  const std::optional<int64_t> depth = take_number(rest);
  if (!depth || !take(rest, "_")) return std::nullopt;
  const std::optional<int64_t> width = take_number(rest);
  if (!width || rest != "_cifar") return std::nullopt;
  check_depth(name, *depth,
              {6, 4, "three stages of n blocks of two convolutions, a projection each, a stem and a classifier"});
  constexpr int64_t kWidest = 100;
  if (*width > kWidest) throw UserError("model '{}': width {}; expected {} at most", name, *width, kWidest);
  return wide_model(*depth, *width);
}

/// The model of a family, of any depth; none when the name is not of one.
std::optional<ModelSpec> family_model(const std::string& name) {
  if (std::optional<ModelSpec> model = preactivation_family_model(name)) return model;
  std::string_view rest = name;
  const bool residual = take(rest, "resnet");
  if (!residual && !take(rest, "plain")) return std::nullopt;
  const std::optional<int64_t> number = take_number(rest);
  if (!number) return std::nullopt;
  const int64_t depth = *number;
  using cifar::Shortcut;
  std::optional<Shortcut> shortcut;
  if (!residual && rest == "_cifar") shortcut = Shortcut::none;
  if (residual && (rest == "_cifar" || rest == "_cifar_a")) shortcut = Shortcut::pad;
  if (residual && rest == "_cifar_b") shortcut = Shortcut::project;
  if (shortcut) {
    check_depth(name, depth, {6, 2, "three stages of n blocks of two convolutions, a stem and a classifier"});
    return cifar_model(depth, *shortcut);
  }
  if (rest != "_mlp") return std::nullopt;
  check_depth(name, depth, {2, 2, "n blocks of two linear layers, one before and one after them"});
  return mlp_model(depth, residual);
}

std::vector<ModelSpec> make_models() {
  using cifar::Shortcut;
  using torchvision::Block;
  const Blocks k18{2, 2, 2, 2}, k50{3, 4, 6, 3}, k101{3, 4, 23, 3}, k152{3, 8, 36, 3};
  constexpr const char *kUsual = "torchvision's, v1.5", *kPaper = "the paper's, v1: stride on the first 1x1";
  constexpr const char *kGrouped = "torchvision's, grouped 3x3 convolutions", *kWide = "torchvision's, twice as wide";
  constexpr torchvision::BottleneckOptions kV1{.stride_on = torchvision::Stride::conv1};
  std::vector<ModelSpec> models = {
      lecture_model(),
      torchvision_model("resnet18", kUsual, Block::basic, k18),
      torchvision_model("resnet34", kUsual, Block::basic, k50),
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
  using timm::Attention;
  constexpr auto kBasic = timm::Block::basic, kBottleneck = timm::Block::bottleneck;
  constexpr timm::BlockOptions kAverage{.average_shortcut = true};
  constexpr const char* kD = "timm's: deep stem, averaging shortcuts";
  const UsualPhotos larger{.image_size = 256, .crop_pct = 0.95, .interpolation = "bicubic"};
  models.insert(
      models.end(),
      {
          timm_model("resnet18d", kD, {.block = kBasic, .blocks = k18, .deep_stem = 32, .options = kAverage}),
          timm_model("resnet26d", kD, {.block = kBottleneck, .blocks = k18, .deep_stem = 32, .options = kAverage}),
          timm_model("resnet34d", kD, {.block = kBasic, .blocks = k50, .deep_stem = 32, .options = kAverage}),
          timm_model("resnet50d", kD, {.blocks = k50, .deep_stem = 32, .options = kAverage}),
          timm_model("resnet101d", kD, {.blocks = k101, .deep_stem = 32, .options = kAverage}, larger),
          timm_model("resnet152d", kD, {.blocks = k152, .deep_stem = 32, .options = kAverage}, larger),
          timm_model("resnet50c", "timm's: deep stem", {.blocks = k50, .deep_stem = 32}),
          timm_model("resnet50s", "timm's: deep stem, twice as wide", {.blocks = k50, .deep_stem = 64}),
          timm_model("seresnet50", "timm's: squeeze-and-excitation",
                     {.blocks = k50, .options = {.attention = Attention::squeeze_excite}},
                     {.crop_pct = 0.95, .interpolation = "bicubic"}),
          timm_model("ecaresnet50d", "timm's resnet50d with channel attention",
                     {.blocks = k50,
                      .deep_stem = 32,
                      .options = {.average_shortcut = true, .attention = Attention::efficient}}),
          timm_model("resnetblur50", "timm's: blurred downsampling", {.blocks = k50, .options = {.blur = true}}),
          resnetv2_model("resnetv2_50", k50),
          resnetv2_model("resnetv2_101", k101),
          preresnet_model(164),
          preresnet_model(1001),
          wide_model(28, 10),
      });
  for (const Shortcut shortcut : {Shortcut::pad, Shortcut::project, Shortcut::none}) {
    for (const int64_t depth : {20, 32, 44, 56, 110, 1202}) models.push_back(cifar_model(depth, shortcut));
  }
  for (const bool residual : {true, false}) {
    for (const int64_t depth : {20, 56, 110}) models.push_back(mlp_model(depth, residual));
  }
  return models;
}

constexpr const char* kOptionNames[] = {"stem_padding", "batch_norm", "zero_init_residual",
                                        "init",         "blocks",     "drop_path"};

/// "[3, 4, 6, 3]" or "3,4,6,3". The bounds keep a file's metadata from making us build any graph.
StageLayout blocks_of_text(const std::string& text) {
  constexpr int64_t kBlocks = 200;
  StageLayout layout;
  size_t stages = 0;
  std::string_view rest = text;
  const auto skip_spaces = [&] {
    while (take(rest, " ")) {
    }
  };
  const auto fail = [&] {
    throw UserError("model.blocks: '{}'; expected the blocks of 1 to {} stages, each 1 to {}, such as [3, 4, 6, 3]",
                    escape_control(text), layout.blocks.size(), kBlocks);
  };
  skip_spaces();
  const bool brackets = take(rest, "[");
  do {
    skip_spaces();
    const std::optional<int64_t> number = rest.empty() ? std::nullopt : take_number(rest);
    if (!number || *number > kBlocks || stages == layout.blocks.size()) fail();
    layout.blocks[stages++] = *number;
    skip_spaces();
  } while (take(rest, ","));
  if (brackets && !take(rest, "]")) fail();
  skip_spaces();
  if (!rest.empty()) fail();
  return layout;
}

bool truth_of(const std::string& name, const std::string& text) {
  if (text == "true") return true;
  if (text == "false") return false;
  throw UserError("model.{}: '{}'; expected true or false", name, escape_control(text));
}

}  // namespace

const char* const kFamilies =
    "Any other depth of a family has its name too: resnetN_cifar_a, resnetN_cifar_b and plainN_cifar for N = 6n + 2,\n"
    "preresnetN_cifar for N = 9n + 2, wrnN_K_cifar for N = 6n + 4 and any width K, resnetN_mlp and plainN_mlp for\n"
    "N = 2n + 2. resnetN_cifar is resnetN_cifar_a.";

std::vector<int64_t> StageLayout::list() const { return {blocks.begin(), std::find(blocks.begin(), blocks.end(), 0)}; }

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
  if (options.blocks != usual.blocks) changed["blocks"] = fmt::format("[{}]", fmt::join(options.blocks.list(), ", "));
  if (options.drop_path != usual.drop_path) changed["drop_path"] = fmt::format("{}", options.drop_path);
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
  } else if (name == "blocks") {
    options.blocks = blocks_of_text(text);
  } else if (name == "drop_path") {
    double rate = -1;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), rate);
    if (error != std::errc() || end != text.data() + text.size() || !(rate >= 0 && rate < 1))
      throw UserError("model.drop_path: '{}'; expected a probability in [0, 1)", escape_control(text));
    options.drop_path = rate;
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

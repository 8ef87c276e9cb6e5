#include "models/registry.h"

#include "base/error.h"
#include "models/lecture.h"
#include "models/torchvision.h"

namespace resnet {
namespace {

ModelSpec torchvision_model(const char* name, torchvision::Block block, std::array<int64_t, 4> depths) {
  return {name, "torchvision's, v1.5", {3, 224, 224}, 1000, [=](Scope s, Value x, const ModelOptions& options) {
            const int64_t classes = options.num_classes > 0 ? options.num_classes : 1000;
            return torchvision::resnet(s, x, {.block = block, .depths = depths, .num_classes = classes});
          }};
}

}  // namespace

const std::vector<ModelSpec>& all_models() {
  using torchvision::Block;
  static const std::vector<ModelSpec> models = {
      {"lecture_resnet18",
       "the lecture's: biases, shortcut without batch norm",
       {1, 96, 96},
       10,
       [](Scope s, Value x, const ModelOptions& options) {
         return lecture::resnet18(
             s, x,
             {.num_classes = options.num_classes > 0 ? options.num_classes : 10, .stem_padding = options.stem_padding});
       }},
      torchvision_model("resnet18", Block::basic, {2, 2, 2, 2}),
      torchvision_model("resnet34", Block::basic, {3, 4, 6, 3}),
      torchvision_model("resnet50", Block::bottleneck, {3, 4, 6, 3}),
      torchvision_model("resnet101", Block::bottleneck, {3, 4, 23, 3}),
      torchvision_model("resnet152", Block::bottleneck, {3, 8, 36, 3}),
  };
  return models;
}

const ModelSpec& find_model(const std::string& name) {
  std::vector<std::string> names;
  for (const ModelSpec& model : all_models()) {
    if (model.name == name) return model;
    names.push_back(model.name);
  }
  throw UserError("model '{}' is unknown; nearest: {}; `resnet summary --list` shows all", escape_control(name),
                  nearest_names(name, names));
}

}  // namespace resnet

#include "formats/onnx.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "models/registry.h"
#include "ops/all.h"
#include "ops/fill.h"
#include "train/export.h"
#include "train/inference.h"
#include "train/model_state.h"

namespace resnet {
namespace {

/// Ops that no inference graph holds: losses, gradients, updates, statistics.
const std::set<std::string_view> kNotExported = {"avg_pool_grad",
                                                 "batch_norm",
                                                 "batch_norm_grad",
                                                 "blur_pool_grad",
                                                 "channel_conv_weight_grad",
                                                 "channel_sum",
                                                 "conv2d_input_grad",
                                                 "conv2d_max_pool",
                                                 "conv2d_weight_grad",
                                                 "fill",
                                                 "global_avg_pool_grad",
                                                 "l2_norm",
                                                 "linear_input_grad",
                                                 "linear_weight_grad",
                                                 "max_pool_grad",
                                                 "relu_grad",
                                                 "running_average",
                                                 "scale_grad",
                                                 "sgd_update",
                                                 "sigmoid_grad",
                                                 "softmax_cross_entropy",
                                                 "softmax_cross_entropy_grad"};

TEST(Onnx, EveryOpHasAFormOrIsOfTrainingOrMadeByAPass) {
  const std::vector<std::string> forms = onnx_ops();
  for (const OpDef* op : all_ops()) {
    const bool has_form = std::find(forms.begin(), forms.end(), op->name) != forms.end();
    EXPECT_NE(has_form, kNotExported.contains(op->name))
        << op->name << ": add it to kForms of formats/onnx.cpp, or to the list here";
  }
}

TEST(Onnx, AnOpWithoutAFormIsNamed) {
  Graph graph;
  graph.set_output("logits", fill(graph, {DType::f32, {1, 2}}, 1, "constant"));
  StringSink sink;
  try {
    write_onnx(sink, graph, {}, {});
    FAIL() << "no error";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("onnx: fill 'constant': has no form in ONNX; expected one of add,"),
              std::string::npos)
        << error.what();
  }
}

LoadedModel model_of(const std::string& name) {
  const ModelSpec spec = find_model(name);
  LoadedModel model;
  model.description = {
      .architecture = spec.name, .channels = spec.input[0], .class_names = std::vector<std::string>(10, "k")};
  model.description.options.num_classes = 10;
  model.description.preprocessing.image_size = spec.input[1];
  for (const StateSpec& state : model_states(spec, model.description.options, DType::f32))
    model.values[state.name] = initial_value(state, 1);
  return model;
}

std::string exported(const LoadedModel& model, const ExportOptions& options) {
  StringSink sink;
  export_onnx(sink, model, {{"class_names", "[\"a\"]"}}, options);
  return sink.text();
}

TEST(Onnx, FoldedFilesHaveNoBatchNormAndOthersDo) {
  const LoadedModel model = model_of("resnet20_cifar_a");
  const std::string folded = exported(model, {}), whole = exported(model, {.fold_batch_norm = false});
  EXPECT_EQ(folded.find("BatchNormalization"), std::string::npos);
  EXPECT_NE(whole.find("BatchNormalization"), std::string::npos);
  EXPECT_NE(folded.find("@folded"), std::string::npos);
  EXPECT_NE(folded.find("class_names"), std::string::npos);
  EXPECT_EQ(exported(model, {}), folded);  // the same bytes each time
}

TEST(Onnx, TheBatchIsADimensionOfItsOwnUnlessItIsGiven) {
  const LoadedModel model = model_of("resnet8_mlp");
  EXPECT_NE(exported(model, {}).find("batch"), std::string::npos);
  EXPECT_EQ(exported(model, {.batch = 4}).find("batch"), std::string::npos);
}

TEST(Onnx, OpsetsOutOfRangeAreRefused) {
  for (const int64_t opset : {12, 18})
    EXPECT_THROW(exported(model_of("resnet8_mlp"), {.opset = opset}), UserError) << opset;
}

}  // namespace
}  // namespace resnet

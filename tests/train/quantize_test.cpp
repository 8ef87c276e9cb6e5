#include "train/quantize.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "formats/temporary_directory.h"
#include "ops/conv2d.h"
#include "runtime/on_backend.h"
#include "serve/classifier.h"
#include "serve/small_model.h"
#include "train/inference.h"

namespace resnet {
namespace {

using namespace testing;

Dataset random_images(int64_t count, int64_t side, int64_t channels, int64_t classes) {
  Dataset d;
  d.name = "random";
  d.count = count;
  d.channels = channels;
  d.height = d.width = side;
  for (int64_t i = 0; i < classes; ++i) d.class_names.push_back(std::to_string(i));
  for (int64_t i = 0; i < count; ++i) d.labels.push_back(static_cast<int32_t>(i % classes));
  d.pixels = random_pixels(5, count * side, side, channels);
  return d;
}

/// A model of random weights, loaded as from a file.
LoadedModel model_of(const std::string& architecture, int64_t size, int64_t channels = 3, ModelOptions options = {}) {
  LoadedModel model;
  ModelDescription& d = model.description;
  d.architecture = architecture;
  d.options = options;
  d.options.num_classes = 5;
  d.channels = channels;
  d.class_names = {"a", "b", "c", "d", "e"};
  d.preprocessing.image_size = size;
  d.preprocessing.mean.assign(static_cast<size_t>(channels), 0.45f);
  d.preprocessing.std.assign(static_cast<size_t>(channels), 0.25f);
  d.preprocessing.mean[0] = 0.6f;
  ModelSpec spec = find_model(architecture);
  spec.input = {channels, size, size};
  for (const StateSpec& state : model_states(spec, d.options, DType::f32)) {
    Tensor value = initial_value(state, 7);
    Rng rng(hash_text(state.name));
    if (value.shape().rank() == 1) {
      for (float& v : value.as<float>()) v += static_cast<float>(rng.uniform(-0.2, 0.2));
    }
    model.values[state.name] = std::move(value);
  }
  return model;
}

LoadedModel int8_of(const LoadedModel& model, const QuantizedModel& quantized) {
  LoadedModel int8;
  int8.description = model.description;
  int8.values = quantized.tensors;
  int8.quantization = quantized.quantization;
  return int8;
}

Tensor inputs_of(const LoadedModel& model, int64_t n) {
  const Preprocessing& p = model.description.preprocessing;
  Tensor x(DType::f32, Shape{n, model.description.channels, p.image_size, p.image_size});
  PreprocessScratch scratch;
  const int64_t each = x.elements() / n;
  for (int64_t i = 0; i < n; ++i) {
    const auto pixels =
        random_pixels(100 + static_cast<uint64_t>(i), p.image_size, p.image_size, model.description.channels);
    preprocess(
        {.pixels = pixels, .channels = model.description.channels, .height = p.image_size, .width = p.image_size}, p,
        scratch, x.as<float>().subspan(static_cast<size_t>(i * each), static_cast<size_t>(each)));
  }
  return x;
}

Tensor logits_of(LoadedModel model, const Tensor& x, const char* backend) {
  Classifier classifier(std::move(model), {.threads = 2, .max_batch = x.shape()[0], .backend = backend});
  return classifier.logits(x);
}

/// Signal over error, dB.
double agreement(const Tensor& exact, const Tensor& rough) {
  double signal = 0, error = 0;
  for (size_t i = 0; i < exact.as<float>().size(); ++i) {
    const double x = static_cast<double>(exact.as<float>()[i]), d = static_cast<double>(rough.as<float>()[i]) - x;
    signal += x * x;
    error += d * d;
  }
  return 10 * std::log10(signal / error);
}

TEST(Quantize, StreamsGiveTheSameLogitsAndAreChosenByMeasuringOnce) {
  if (omp_get_thread_limit() < 2) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no two threads";
  const PrivateTuningCache cache;
  const LoadedModel model = model_of("resnet20_cifar_a", 16);
  const QuantizedModel quantized = quantize_model(model, random_images(8, 16, 3, 5), {.images = 8, .threads = 2});
  ModelSpec spec = find_model(model.description.architecture);
  const auto options = [&](int64_t together, int streams) {
    return InferenceOptions{.model = model.description.options,
                            .images = {5, 3, 16, 16},
                            .micro_batch = together,
                            .streams = streams,
                            .passes = {},
                            .keep_model_states = false,
                            .quantization = &quantized.quantization};
  };
  const Tensor x = inputs_of(model, 5);
  const auto logits = [&](int64_t together, int streams) {
    Session session(make_backend("cpu", 2));
    InferenceProgram program(session, spec, options(together, streams));
    program.load(quantized.tensors);
    return program.run(x);
  };
  const Tensor by_team = logits(5, 1);
  for (const int64_t together : {2, 3, 5}) {
    const Tensor in_streams = logits(together, 2);
    // All sums but those of the last layer, which is f32, are whole numbers.
    EXPECT_GT(agreement(by_team, in_streams), 120) << together;
  }

  const auto measured = [&] {
    Session session(make_backend("cpu", 2));
    bool compares = false, streams = false;
    const InferenceProgram program(session, spec, options(kMeasuredMicroBatch, 0),
                                   [&](const std::string& what, int, int) {
                                     compares |= what.find("micro-batches of") != what.npos;
                                     streams |= what.find(" in 2 streams") != what.npos;
                                   });
    return std::tuple(program.micro_batch(), compares, streams);
  };
  const auto [chosen, compares, streams] = measured();
  EXPECT_TRUE(compares);
  EXPECT_TRUE(streams);
  EXPECT_EQ(measured(), std::tuple(chosen, false, false)) << "it was remembered";
  for (const MicroBatch together : {MicroBatch{3, 1}, {4, 2}}) {
    make_backend("cpu", 2)->remember(micro_batch_problem(spec, options(kMeasuredMicroBatch, 0)), str(together));
    EXPECT_EQ(measured(), std::tuple(together, false, false));
  }
}

/// In streams, or not: for any number of images, from a file and from the cache.
TEST(Quantize, AClassifierWhoseLargestBatchGoesInStreams) {
  if (omp_get_thread_limit() < 2) GTEST_SKIP() << "OMP_THREAD_LIMIT leaves no two threads";
  const PrivateTuningCache cache;
  const TemporaryDirectory folder;
  const LoadedModel model = model_of("resnet18", 32);
  const QuantizedModel quantized = quantize_model(model, random_images(8, 32, 3, 5), {.images = 8, .threads = 2});
  const std::string path = folder.path() + "/m.safetensors";
  ModelFile file{.metadata = to_metadata(model.description), .tensors = quantized.tensors};
  file.metadata[kQuantizationKey] = to_json(quantized.quantization);
  write_safetensors(path, file);
  const InferenceOptions options{.model = model.description.options,
                                 .images = {5, 3, 32, 32},
                                 .passes = {},
                                 .quantization = &quantized.quantization};
  const Tensor x = inputs_of(model, 9);
  Tensor first;
  std::string origin = "file (not kept yet)";
  std::map<int, int> programs;  // by streams
  for (const MicroBatch together : {MicroBatch{4, 2}, {4, 2}, {4, 1}}) {
    make_backend("cpu", 2)->remember(micro_batch_problem(find_model("resnet18"), options), str(together));
    programs[together.streams] = 0;
    Classifier classifier(
        path, {.threads = 2, .max_batch = 5, .measure = true, .progress = [&](const std::string&, int done, int) {
                 programs[together.streams] += done == 1;
               }});
    EXPECT_EQ(classifier.weights_origin(), std::exchange(origin, "cache"));
    EXPECT_EQ(classifier.compiled_batches(), (std::vector<int64_t>{1, 4}));
    const Tensor all = classifier.logits(x);
    EXPECT_EQ(classifier.logits(x), all);
    if (first.elements() == 1) first = all;
    EXPECT_GT(agreement(first, all), 120) << str(together);
    for (int64_t n = 1; n < 9; ++n) {
      Tensor some(DType::f32, Shape{n, 3, 32, 32}), expected(DType::f32, Shape{n, 5});
      std::memcpy(some.data(), x.data(), some.size_bytes());
      std::memcpy(expected.data(), first.data(), expected.size_bytes());
      EXPECT_GT(agreement(expected, classifier.logits(some)), 120) << n << ", " << str(together);
    }
  }
  EXPECT_EQ(programs[2], programs[1] + 1) << "one more of the largest batch";
}

TEST(Quantize, KeepsTheLogitsOfEveryKindOfNet) {
  const ModelOptions no_norm{.batch_norm = false}, short_net{.blocks = {1, 1, 1, 1}};
  const struct {
    const char* architecture;
    int64_t size, channels;
    ModelOptions options;
  } nets[] = {{"resnet20_cifar_a", 16, 3, {}},    {"preresnet20_cifar", 16, 3, {}},    {"lecture_resnet18", 24, 1, {}},
              {"resnet50", 32, 3, short_net},     {"resnet18d", 32, 3, short_net},     {"seresnet50", 32, 3, short_net},
              {"resnetblur50", 32, 3, short_net}, {"resnet20_cifar_b", 16, 3, no_norm}};
  for (const auto& net : nets) {
    const std::string name = net.architecture;
    const LoadedModel model = model_of(name, net.size, net.channels, net.options);
    const Dataset images = random_images(16, net.size, net.channels, 5);
    const QuantizedModel quantized = quantize_model(model, images, {.images = 16, .threads = 2});
    for (const LayerError& layer : quantized.layers) EXPECT_GT(layer.sqnr_db, 20) << name << " " << layer.name;
    const Tensor x = inputs_of(model, 4);
    const Tensor exact = logits_of(model, x, "cpu");
    const Tensor rough = logits_of(int8_of(model, quantized), x, "cpu");
    EXPECT_GT(agreement(exact, rough), 14) << name;
    if (net.size > 24) continue;  // the loops take their time
    const Tensor reference = logits_of(int8_of(model, quantized), x, "reference");
    EXPECT_GT(agreement(reference, rough), name.starts_with("pre") ? 25 : 100)
        << name << ": all but f32 layers is the same";
  }
}

TEST(Quantize, EveryArchitectureHasAQuantizedGraph) {
  for (const char* name : {"resnet50", "resnext50_32x4d", "wide_resnet50_2", "seresnet50", "ecaresnet50d",
                           "resnetv2_50", "wrn16_4_cifar", "resnet20_cifar_b", "resnet50_v1"}) {
    const ModelSpec spec = find_model(name);
    const auto graph = make_inference_graph(spec, {.images = {2, spec.input[0], spec.input[1], spec.input[2]}});
    run_inference_passes(*graph, {});
    const std::vector<std::string> layers = quantizable_layers(*graph);
    ASSERT_GT(layers.size(), 10u) << name;
    const QuantizedGraph quantized = quantize_graph(*graph, {layers.begin(), layers.end()});
    size_t convolutions = 0;
    for (const int32_t id : quantized.graph->live_nodes()) {
      const Node& node = quantized.graph->node(id);
      convolutions += node.op && node.op->name == "quantized_conv2d";
    }
    EXPECT_EQ(convolutions, layers.size()) << name;
    EXPECT_EQ(quantized.graph->outputs().size(), 1u);
    // The names in the file do not depend on the batch.
    const auto other = make_inference_graph(spec, {.images = {1, spec.input[0], spec.input[1], spec.input[2]}});
    run_inference_passes(*other, {});
    EXPECT_EQ(quantize_graph(*other, {layers.begin(), layers.end()}).tensors, quantized.tensors) << name;
  }
}

TEST(Quantize, TheSameInputGivesTheSameBytes) {
  const LoadedModel model = model_of("resnet20_cifar_a", 16);
  const Dataset images = random_images(12, 16, 3, 5);
  for (const ClipMethod method : {ClipMethod::minimum_error, ClipMethod::percentile}) {
    const auto once = quantize_model(model, images, {.method = method, .images = 12, .threads = 2, .workers = 1});
    const auto twice = quantize_model(model, images, {.method = method, .images = 12, .threads = 2, .workers = 0});
    EXPECT_EQ(once.tensors, twice.tensors);
    EXPECT_EQ(to_json(once.quantization), to_json(twice.quantization));
  }
}

TEST(Quantize, LayersWithTooLargeAnErrorStayInF32) {
  const LoadedModel model = model_of("resnet20_cifar_a", 16);
  const Dataset images = random_images(12, 16, 3, 5);
  const auto all = quantize_model(model, images, {.images = 12});
  std::vector<double> errors;
  for (const LayerError& layer : all.layers) errors.push_back(layer.sqnr_db);
  std::sort(errors.begin(), errors.end());
  const double middle = errors[errors.size() / 2];
  const auto half = quantize_model(model, images, {.images = 12, .min_sqnr = middle});
  size_t kept = 0;
  for (const LayerError& layer : half.layers) {
    EXPECT_EQ(layer.quantized, layer.sqnr_db >= middle) << layer.name;
    EXPECT_EQ(half.tensors.at(layer.name + ".weight").dtype(), layer.quantized ? DType::i8 : DType::f32) << layer.name;
    kept += !layer.quantized;
  }
  EXPECT_EQ(kept, errors.size() / 2);
  const Tensor x = inputs_of(model, 3);
  EXPECT_GT(agreement(logits_of(model, x, "cpu"), logits_of(int8_of(model, half), x, "cpu")), 14);
  EXPECT_THROW(quantize_model(model, images, {.images = 12, .min_sqnr = 1000}), UserError);
}

TEST(Quantize, ANetWithoutConvolutionsIsRefused) {
  const LoadedModel model = model_of("plain8_mlp", 8, 1);
  try {
    quantize_model(model, random_images(4, 8, 1, 5), {.images = 4});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::refused);
    EXPECT_NE(std::string(error.what()).find("no convolution"), std::string::npos);
  }
}

TEST(Quantize, AWeightThatIsNoNumberIsRefusedByName) {
  for (const char* name : {"layer2.1.conv1.weight", "bn1.running_var", "linear.bias"}) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      LoadedModel model = model_of("resnet20_cifar_a", 16);
      ASSERT_TRUE(model.values.contains(name)) << name;
      model.values.at(name).as<float>().back() = value;
      try {
        quantize_model(model, random_images(4, 16, 3, 5), {.images = 4});
        ADD_FAILURE() << "nothing was thrown for " << name;
      } catch (const UserError& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_data);
        EXPECT_NE(std::string(error.what()).find(fmt::format("tensor '{}': holds ", name)), std::string::npos)
            << error.what();
      }
    }
  }
}

/// Folders give images class by class: the first of them say nothing about the others.
TEST(Quantize, CalibrationImagesAreDrawnFromAllThereAre) {
  const LoadedModel model = model_of("resnet20_cifar_a", 16);
  Dataset dark_first = random_images(64, 16, 3, 5), dark = random_images(32, 16, 3, 5);
  const size_t half = dark_first.pixels.size() / 2;
  std::fill_n(dark_first.pixels.begin(), half, uint8_t{115});
  std::fill(dark.pixels.begin(), dark.pixels.end(), uint8_t{115});
  const auto scale = [&](const Dataset& images, int64_t count) {
    const QuantizedModel quantized = quantize_model(model, images, {.images = count});
    EXPECT_EQ(quantized.quantization.images, count);
    return quantized.tensors.at("layer1.0.conv1.output_scale").as<float>()[0];
  };
  const float of_all = scale(dark_first, 64), drawn = scale(dark_first, 16), of_the_dark = scale(dark, 32);
  EXPECT_GT(of_all, 1.5 * of_the_dark) << "the images must differ";
  EXPECT_NEAR(drawn, of_all, 0.2 * of_all);
}

/// The f32 convolution's mean over the images is the 8-bit one's: what biases are corrected for.
TEST(Quantize, WeightsAreRoundedWithTheLeastErrorAndBiasesFollow) {
  const LoadedModel model = model_of("resnet20_cifar_a", 16);
  const auto quantized = quantize_model(model, random_images(16, 16, 3, 5), {.images = 16});
  for (const LayerError& layer : quantized.layers) {
    const Tensor& weight = quantized.tensors.at(layer.name + ".weight");
    const auto largest = std::max_element(weight.as<int8_t>().begin(), weight.as<int8_t>().end());
    EXPECT_EQ(*std::min_element(weight.as<int8_t>().begin(), weight.as<int8_t>().end()) >= -127, true);
    EXPECT_GT(*largest, 100) << layer.name;
  }
}

class QuantizedFile : public ::testing::Test {
 protected:
  QuantizedFile() {
    const LoadedModel model = model_of("resnet20_cifar_a", 16);
    const auto quantized = quantize_model(model, random_images(8, 16, 3, 5), {.images = 8});
    file_.metadata = to_metadata(model.description);
    file_.metadata[kQuantizationKey] = to_json(quantized.quantization);
    file_.tensors = quantized.tensors;
  }

  std::string write(const ModelFile& file) const {
    const std::string path = folder_.path() + "/m.safetensors";
    write_safetensors(path, file);
    return path;
  }

  template <class Change>
  void expect_refused(Change&& change, const std::vector<std::string>& parts,
                      ExitCode code = ExitCode::bad_data) const {
    ModelFile file = file_;
    change(file);
    const std::string path = write(file);
    try {
      load_model(path);
      ADD_FAILURE() << "nothing was thrown; expected an error about " << parts[0];
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      for (const std::string& part : parts)
        EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " is not in: " << error.what();
      EXPECT_NE(std::string(error.what()).find("m.safetensors"), std::string::npos) << error.what();
    }
  }

  TemporaryDirectory folder_;
  ModelFile file_;
};

TEST_F(QuantizedFile, LoadsAsItWasWritten) {
  const LoadedModel loaded = load_model(write(file_));
  EXPECT_EQ(loaded.values, file_.tensors);
  ASSERT_TRUE(loaded.quantization);
  EXPECT_EQ(to_json(*loaded.quantization), file_.metadata.at(kQuantizationKey));
  EXPECT_EQ(describe_model(write(file_)).architecture, "resnet20_cifar_a");
}

TEST_F(QuantizedFile, HostileContentIsRefusedByName) {
  const std::string layer = "layer1.0.conv1";
  const auto number = [&](const std::string& name, float value) {
    return [=](ModelFile& f) { f.tensors.at(name).as<float>()[0] = value; };
  };
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  ASSERT_TRUE(file_.tensors.contains(layer + ".weight_scale"));
  for (const float value : {0.0f, -1.0f, nan, infinity}) {
    expect_refused(number(layer + ".weight_scale", value), {layer + ".weight_scale", "above 0"});
    expect_refused(number(layer + ".output_scale", value), {layer + ".output_scale", "above 0"});
  }
  expect_refused(number(layer + ".bias", nan), {layer + ".bias", "finite"});
  expect_refused([&](ModelFile& f) { f.tensors.erase(layer + ".output_scale"); }, {layer + ".output_scale", "missing"});
  expect_refused([&](ModelFile& f) { f.tensors["extra"] = Tensor(DType::u8, Shape{1}); }, {"extra", "unexpected"});
  expect_refused([&](ModelFile& f) { f.tensors[layer + ".weight_scale"] = Tensor(DType::f32, Shape{3}); },
                 {layer + ".weight_scale", "expected F32 16"});
  for (const DType dtype : {DType::f32, DType::u8}) {
    expect_refused(
        [&](ModelFile& f) {
          f.tensors[layer + ".weight"] = Tensor(dtype, Shape{16, 16, 3, 3});
        },
        {layer + ".weight", "expected I8 16x16x3x3"});
  }
  for (const char* text : {"", "[]", "{}", "{\"scheme\":\"int4\",\"layers\":[\"conv1\"]}",
                           "{\"scheme\":\"int8\",\"layers\":[]}", "{\"scheme\":\"int8\",\"layers\":[1]}"}) {
    expect_refused([&](ModelFile& f) { f.metadata[kQuantizationKey] = text; }, {"quantization", "expected JSON"});
  }
  expect_refused(
      [&](ModelFile& f) { f.metadata[kQuantizationKey] = "{\"scheme\":\"int8\",\"layers\":[\"layer1.0.conv9\"]}"; },
      {"quantization", "layer1.0.conv9", "layer1.0.conv1"});
  // Without the record the weights are those of no f32 model.
  expect_refused([&](ModelFile& f) { f.metadata.erase(kQuantizationKey); }, {"do not fit", layer + ".weight"});
}

TEST_F(QuantizedFile, ExtremeNumbersNeitherCrashNorTrap) {
  ModelFile file = file_;
  for (auto& [name, tensor] : file.tensors) {
    if (name.ends_with("_scale")) {
      for (float& v : tensor.as<float>()) v = name.ends_with("output_scale") ? 1e-38f : 3e38f;
    }
    if (name.ends_with(".bias") && file.tensors.contains(name.substr(0, name.rfind('.')) + ".weight_scale")) {
      for (float& v : tensor.as<float>()) v = -3e38f;
    }
  }
  const LoadedModel loaded = load_model(write(file));
  const Tensor x = inputs_of(loaded, 2);
  EXPECT_EQ(logits_of(loaded, x, "cpu").shape(), (Shape{2, 5}));
  EXPECT_EQ(logits_of(loaded, x, "reference").shape(), (Shape{2, 5}));
}

TEST_F(QuantizedFile, IsNoSourceOfF32Weights) {
  const WeightsFile file(write(file_));
  try {
    require_fit(file, {});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::refused);
    EXPECT_NE(std::string(error.what()).find("8-bit weights"), std::string::npos);
  }
}

}  // namespace
}  // namespace resnet

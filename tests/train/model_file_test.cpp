#include "train/model_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "formats/temporary_directory.h"
#include "ops/evaluate.h"
#include "train/model_state.h"

namespace resnet {
namespace {

using Metadata = std::map<std::string, std::string>;

ModelDescription description() {
  ModelDescription d;
  d.architecture = "lecture_resnet18";
  d.options = {.num_classes = 3, .stem_padding = 0};
  d.channels = 2;
  d.class_names = {"cat", "a \"dog\"", "ünï\ncode"};
  d.preprocessing = {.image_size = 17, .mean = {0.1f, 0.2f}, .std = {0.3f, 1.0f / 3}};
  return d;
}

template <class Action>
void expect_bad_data(Action&& action, const std::string& part) {
  try {
    action();
    ADD_FAILURE() << "nothing was thrown; expected bad data about " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data) << error.what();
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " is not in: " << error.what();
    EXPECT_NE(std::string(error.what()).find("m.safetensors"), std::string::npos) << error.what();
  }
}

TEST(ModelFile, MetadataRoundTripsExactly) {
  const ModelDescription written = description();
  const ModelDescription read = from_metadata("m.safetensors", to_metadata(written));
  EXPECT_EQ(read.architecture, written.architecture);
  EXPECT_EQ(read.options.num_classes, 3);
  EXPECT_EQ(read.options.stem_padding, 0);
  EXPECT_EQ(read.channels, 2);
  EXPECT_EQ(read.class_names, written.class_names);
  EXPECT_EQ(read.preprocessing, written.preprocessing);
  EXPECT_EQ(to_metadata(read), to_metadata(written));
  EXPECT_EQ(to_metadata(written).at("format"), "pt");
  ModelDescription usual = written;
  usual.options.stem_padding = 3;
  EXPECT_FALSE(to_metadata(usual).contains("model.stem_padding"));
}

TEST(ModelFile, OptionsOfAModelRoundTripUnderItsCanonicalName) {
  ModelDescription written = description();
  written.architecture = "resnet20_cifar";
  for (const ModelOptions& options :
       {ModelOptions{.num_classes = 3}, ModelOptions{.num_classes = 3, .batch_norm = false, .init = WeightInit::xavier},
        ModelOptions{.num_classes = 3, .zero_init_residual = true},
        ModelOptions{.num_classes = 3, .blocks = {1, 2, 1, 1}, .drop_path = 0.2}}) {
    written.options = options;
    const Metadata metadata = to_metadata(written);
    const ModelDescription read = from_metadata("m.safetensors", metadata);
    EXPECT_EQ(read.architecture, "resnet20_cifar_a");
    EXPECT_EQ(read.options, options);
    EXPECT_EQ(metadata.contains("model.batch_norm"), !options.batch_norm);
    EXPECT_EQ(metadata.contains("model.init"), options.init != WeightInit::kaiming);
  }
  const Metadata good = to_metadata(written);
  const std::vector<std::tuple<std::string, std::string, std::string>> wrong = {
      {"model.batch_norm", "no", "true or false"},
      {"model.init", "he", "kaiming, pytorch or xavier"},
      {"model.width", "3", "model.width"},
      {"model.stem_padding", "0", "does not take"},
      {"model.stem_padding", "1x", "0 to 6"},
      {"model.", "1", "no such option"},
      {"model.blocks", "[201]", "1 to 6 stages"},
      {"model.blocks", "[3, 4, 6", "1 to 6 stages"},
      {"model.drop_path", "1", "[0, 1)"},
      {"architecture", "resnet21_cifar_a", "20 and 26"},
      {"architecture", "resnet999998_cifar_a", "10000"}};
  for (const auto& [key, value, part] : wrong) {
    Metadata metadata = good;
    metadata[key] = value;
    SCOPED_TRACE(key + "=" + value);
    expect_bad_data([&] { from_metadata("m.safetensors", metadata); }, part);
  }
}

TEST(ModelFile, ANetOfLinearLayersIsLoadedForItsImageSize) {
  const TemporaryDirectory directory(memory_directory());
  const std::string path = directory / "m.safetensors";
  ModelDescription d = description();
  d.architecture = "plain4_mlp";
  d.options = {.num_classes = 3, .batch_norm = false};
  ModelSpec spec = find_model(d.architecture);
  spec.input = {2, 17, 17};
  ModelFile file{to_metadata(d), {}};
  for (const StateSpec& state : model_states(spec, d.options, DType::f32))
    file.tensors[state.name] = initial_value(state, 1);
  write_safetensors(path, file);
  const LoadedModel loaded = load_model(path);
  EXPECT_EQ(loaded.values, file.tensors);
  EXPECT_EQ(loaded.values.at("linear1.weight").shape(), (Shape{128, 2 * 17 * 17}));
  EXPECT_FALSE(loaded.description.options.batch_norm);
  file.metadata["input_size"] = "[2,16,16]";
  write_safetensors(path, file);
  expect_bad_data([&] { load_model(path); }, "linear1.weight (128x578, expected 128x512)");
}

TEST(ModelFile, HostileMetadataIsBadDataNamingTheKey) {
  const Metadata good = to_metadata(description());
  for (const char* key : {"architecture", "class_names", "num_classes", "input_size", "mean", "std", "interpolation",
                          "crop_pct", "resize"}) {
    Metadata missing = good;
    missing.erase(key);
    expect_bad_data([&] { from_metadata("m.safetensors", missing); }, key);
  }
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"class_names", "[]"},
      {"class_names", "{}"},
      {"class_names", "[1,2,3]"},
      {"class_names", "[\"a\""},
      {"class_names", "[\"a\"]"},
      {"num_classes", "4"},
      {"num_classes", "-3"},
      {"num_classes", "3.0"},
      {"num_classes", "18446744073709551615"},
      {"num_classes", "x\x1b[2J"},
      {"input_size", "[2,17]"},
      {"input_size", "[2,17,18]"},
      {"input_size", "[0,17,17]"},
      {"input_size", "[65,17,17]"},
      {"input_size", "[2,0,0]"},
      {"input_size", "[2,-1,-1]"},
      {"input_size", "[2,1e9,1e9]"},
      {"input_size", "[2,18446744073709551615,18446744073709551615]"},
      {"input_size", "[2,1000000,1000000]"},
      {"input_size", "\"\""},
      {"mean", "[0.1]"},
      {"mean", "[\"a\",0]"},
      {"mean", "0.5"},
      {"mean", "[1e400,0]"},
      {"mean", "[null,0]"},
      {"mean", "[1e300,0]"},
      {"std", "[0,1]"},
      {"std", "[1,1,1]"},
      {"std", "NaN"},
      {"interpolation", "Bicubic"},
      {"crop_pct", "1.0000001"},
      {"crop_pct", "0"},
      {"crop_pct", "1e-300"},
      {"crop_pct", "-1"},
      {"resize_size", "-1"},
      {"resize_size", "8193"},
      {"resize_size", "9e9"},
      {"resize_size", "256.0"},
      {"resize_size", ""},
      {"exif_orientation", "True"},
      {"exif_orientation", ""},
      {"crop_pct", "\"1.0\""},
      {"crop_pct", "[1.0]"},
      {"crop_pct", "true"},
      {"crop_pct", "x"},
      {"crop_pct", ""},
      {"resize", "Squash"},
      {"resize", "\x1b[2J"},
      {"resize", ""},
      {"model.stem_padding", "7"},
      {"model.stem_padding", "x"}};
  for (const auto& [key, value] : wrong) {
    Metadata metadata = good;
    metadata[key] = value;
    SCOPED_TRACE(key + "=" + value);
    // "[\"a\"]" has names enough, but not as many as num_classes says
    expect_bad_data([&] { from_metadata("m.safetensors", metadata); }, key == "class_names" && value == "[\"a\"]"
                                                                           ? "num_classes"
                                                                       : key == "model.stem_padding" ? "stem_padding"
                                                                                                     : "byte");
  }
}

TEST(ModelFile, EveryPreprocessingRoundTripsAndOlderFilesHaveTheLectures) {
  ModelDescription d = description();
  d.preprocessing = {.image_size = 224,
                     .resize = ResizeRule::shortest,
                     .resize_size = 256,
                     .crop_pct = 0.875,
                     .interpolation = Interpolation::bicubic,
                     .mean = {0.485f, 0.456f},
                     .std = {0.229f, 0.224f},
                     .exif_orientation = true};
  EXPECT_EQ(from_metadata("m.safetensors", to_metadata(d)).preprocessing, d.preprocessing);
  for (const char* rule : {"squash", "shortest"}) {
    d.preprocessing.resize = parse_resize_rule(rule);
    EXPECT_EQ(to_metadata(d).at("resize"), rule);
  }
  // What was written before there was a choice: no resize_size, no exif_orientation.
  Metadata metadata = to_metadata(description());
  EXPECT_FALSE(metadata.contains("resize_size"));
  EXPECT_FALSE(metadata.contains("exif_orientation"));
  EXPECT_EQ(metadata.at("crop_pct"), "1.0");
  EXPECT_EQ(metadata.at("resize"), "squash");
  EXPECT_EQ(metadata.at("interpolation"), "bilinear");
  for (const char* one : {"1", "1.0", "1e0", "1.00"}) {
    metadata["crop_pct"] = one;
    EXPECT_EQ(from_metadata("m.safetensors", metadata).preprocessing, description().preprocessing) << one;
  }
  metadata["resize"] = "short\nest";
  expect_bad_data([&] { from_metadata("m.safetensors", metadata); },
                  "found 'short\\x0aest'; expected squash or shortest");
  metadata["resize"] = "squash";
  metadata["interpolation"] = "cubic";
  expect_bad_data([&] { from_metadata("m.safetensors", metadata); }, "lanczos");
}

/// A model file of description() with the first values of seed 1.
ModelFile written_model() {
  const ModelDescription d = description();
  ModelSpec spec = find_model(d.architecture);
  spec.input[0] = d.channels;
  ModelFile file{to_metadata(d), {}};
  for (const StateSpec& state : model_states(spec, d.options, DType::f32))
    file.tensors[state.name] = initial_value(state, 1);
  return file;
}

TEST(ModelFile, AModelWrittenIsTheModelLoaded) {
  const TemporaryDirectory directory(memory_directory());
  const std::string path = directory / "m.safetensors";
  ModelFile file = written_model();
  write_safetensors(path, file);
  EXPECT_EQ(to_metadata(describe_model(path)), file.metadata);
  const LoadedModel loaded = load_model(path);
  EXPECT_EQ(loaded.dtype, DType::f32);
  EXPECT_EQ(loaded.values, file.tensors);
  EXPECT_EQ(loaded.values.at("0.0.weight").shape(), (Shape{64, 2, 7, 7}));

  file.metadata["architecture"] = "lecture_resnet81";
  write_safetensors(path, file);
  expect_bad_data([&] { load_model(path); }, "lecture_resnet18");
  file.metadata["architecture"] = "resnet18";
  write_safetensors(path, file);
  expect_bad_data([&] { load_model(path); }, "does not take model.stem_padding");
  file.metadata.erase("model.stem_padding");
  write_safetensors(path, file);
  expect_bad_data([&] { load_model(path); }, "missing");
  expect_bad_data([&] { describe_model(path); }, "missing");
}

TEST(ModelFile, NoTensorIsReadBeforeAllFitAndNoneThatIsNotTheModels) {
  const TemporaryDirectory directory(memory_directory());
  const std::string path = directory / "m.safetensors";
  ModelFile content = written_model();
  content.tensors["0.num_batches_tracked"] = Tensor(DType::u8, {3});  // the smallest elements lie last
  const ModelDescription d = description();
  ModelSpec spec = find_model(d.architecture);
  spec.input[0] = d.channels;
  const std::vector<StateSpec> states = model_states(spec, d.options, DType::f32);
  // Cut at a tensor's first byte after opening: whoever reads it gets another error.
  const auto opened_and_cut = [&](const std::string& name) {
    write_safetensors(path, content);
    WeightsFile file(path);
    EXPECT_EQ(truncate(path.c_str(), static_cast<off_t>(SafetensorsFile(path).entries().at(name).begin)), 0);
    return file;
  };
  EXPECT_EQ(match_weights(opened_and_cut("0.num_batches_tracked"), states).size(), states.size());
  const std::string first = "0.0.bias";  // the floats lie by name
  expect_bad_data([&] { match_weights(opened_and_cut(first), states); }, "the file ends here");
  content.tensors["head.weight"] = Tensor(DType::f32, {7});
  expect_bad_data([&] { match_weights(opened_and_cut(first), states); }, "1 unexpected: head.weight");
  content.tensors.erase("head.weight");
  content.tensors["7.bias"] = Tensor(DType::f32, {7});
  expect_bad_data([&] { match_weights(opened_and_cut(first), states); }, "1 misshaped: 7.bias (7, expected 3)");
}

TEST(ModelState, InitialValuesAreAFunctionOfSeedAndName) {
  const StateSpec uniform{"a.weight", {DType::f32, {200, 50}}, {Initializer::Kind::uniform, 0.5}, true};
  EXPECT_EQ(initial_value(uniform, 1), initial_value(uniform, 1));
  EXPECT_NE(initial_value(uniform, 1), initial_value(uniform, 2));
  StateSpec renamed = uniform;
  renamed.name = "b.weight";
  EXPECT_NE(initial_value(uniform, 1), initial_value(renamed, 1));
  auto moments = [](const Tensor& t) {
    double sum = 0, squares = 0;
    for (float v : t.as<float>())
      sum += static_cast<double>(v), squares += static_cast<double>(v) * static_cast<double>(v);
    const auto n = static_cast<double>(t.elements());
    return std::pair{sum / n, std::sqrt(squares / n)};
  };
  const auto [mean, spread] = moments(initial_value(uniform, 1));
  EXPECT_NEAR(mean, 0, 0.015);  // 5 standard errors of 10,000 draws
  EXPECT_NEAR(spread, 0.5 / std::sqrt(3.0), 0.007);
  StateSpec normal = uniform;
  normal.initializer = {Initializer::Kind::normal, 2};
  EXPECT_NEAR(moments(initial_value(normal, 3)).second, 2, 0.08);
  StateSpec ones = uniform;
  ones.initializer = {Initializer::Kind::constant, 1};
  EXPECT_EQ(moments(initial_value(ones, 4)), (std::pair{1.0, 1.0}));
  // In double the same draws, so that both precisions train the same net.
  StateSpec wide = uniform;
  wide.type.dtype = DType::f64;
  EXPECT_EQ(convert(initial_value(wide, 1), DType::f32), initial_value(uniform, 1));
}

TEST(ModelState, WeightsThatDoNotFitAreListedTenOfAKind) {
  const std::vector<StateSpec> states = model_states(find_model("resnet18"), {}, DType::f32);
  const TemporaryDirectory directory(memory_directory());
  const std::string path = directory / "m.safetensors";
  ModelFile file;
  for (const StateSpec& state : states) file.tensors[state.name] = Tensor(state.type);
  file.tensors["bn1.num_batches_tracked"] = Tensor(DType::i32, {});
  write_safetensors(path, file);
  EXPECT_EQ(match_weights(WeightsFile(path), states).size(), states.size()) << "PyTorch's counters are passed over";
  file.tensors["head\x1b.weight"] = Tensor(DType::f32, {1});
  file.tensors["fc.bias"] = Tensor(DType::f32, {10});
  file.tensors["fc.weight"] = Tensor(DType::i32, {1000, 512});
  int removed = 0;
  for (const StateSpec& state : states) {
    if (state.name.starts_with("layer1.")) removed += static_cast<int>(file.tensors.erase(state.name));
  }
  write_safetensors(path, file);
  try {
    match_weights(WeightsFile(path), states);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    for (const std::string& part :
         {fmt::format("{} missing", removed), fmt::format("and {} more", removed - 10),
          std::string("1 unexpected: head\\x1b.weight"),
          std::string("2 misshaped: fc.bias (10, expected 1000), fc.weight (I32, expected floats)")}) {
      EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
    }
  }
}

}  // namespace
}  // namespace resnet

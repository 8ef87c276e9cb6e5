#include "train/model_file.h"

#include <gtest/gtest.h>

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

TEST(ModelFile, HostileMetadataIsBadDataNamingTheKey) {
  const Metadata good = to_metadata(description());
  for (const char* key : {"architecture", "class_names", "num_classes", "input_size", "mean", "std", "interpolation"}) {
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
      {"interpolation", "bicubic"},
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

TEST(ModelFile, AModelWrittenIsTheModelLoaded) {
  const TemporaryDirectory directory(memory_directory());
  const std::string path = directory / "m.safetensors";
  const ModelDescription d = description();
  ModelSpec spec = find_model(d.architecture);
  spec.input[0] = d.channels;
  ModelFile file{to_metadata(d), {}};
  for (const StateSpec& state : model_states(spec, d.options, DType::f32))
    file.tensors[state.name] = initial_value(state, 1);
  write_safetensors(path, file);
  const LoadedModel loaded = load_model(path);
  EXPECT_EQ(loaded.dtype, DType::f32);
  EXPECT_EQ(loaded.values, file.tensors);
  EXPECT_EQ(loaded.values.at("0.0.weight").shape(), (Shape{64, 2, 7, 7}));

  file.metadata["architecture"] = "lecture_resnet81";
  write_safetensors(path, file);
  expect_bad_data([&] { load_model(path); }, "lecture_resnet18");
  file.metadata["architecture"] = "resnet18";
  write_safetensors(path, file);
  expect_bad_data([&] { load_model(path); }, "missing");
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
  ModelFile file;
  for (const StateSpec& state : states) file.tensors[state.name] = Tensor(state.type);
  file.tensors["bn1.num_batches_tracked"] = Tensor(DType::i32, {});
  EXPECT_EQ(match_weights("m.safetensors", file, states).size(), states.size()) << "PyTorch's counters are passed over";
  file.tensors["head\x1b.weight"] = Tensor(DType::f32, {1});
  file.tensors["fc.bias"] = Tensor(DType::f32, {10});
  file.tensors["fc.weight"] = Tensor(DType::i32, {1000, 512});
  int removed = 0;
  for (const StateSpec& state : states) {
    if (state.name.starts_with("layer1.")) removed += static_cast<int>(file.tensors.erase(state.name));
  }
  try {
    match_weights("m.safetensors", file, states);
    FAIL() << "nothing was thrown";
  } catch (const UserError& error) {
    const std::string text = error.what();
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    for (const std::string& part :
         {fmt::format("{} missing", removed), fmt::format("and {} more", removed - 10),
          std::string("1 unexpected: head\\x1b.weight"),
          std::string("2 misshaped: fc.bias (10, expected 1000), fc.weight (i32, expected floats)")}) {
      EXPECT_NE(text.find(part), std::string::npos) << part << " is not in: " << text;
    }
  }
}

}  // namespace
}  // namespace resnet

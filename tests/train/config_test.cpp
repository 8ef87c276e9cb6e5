#include "train/config.h"

#include <gtest/gtest.h>

#include "ops/evaluate.h"

namespace resnet {
namespace {

using testing::expect_user_error;

TrainConfig unusual() {
  TrainConfig c;
  c.model = "resnet18";
  c.data = "a \"quoted\" \\ folder\n";
  c.image_size = 33;
  c.epochs = 3;
  c.batch_size = 7;
  c.lr = 0.1 + 0.2;  // has no short decimal
  c.lr_scheduler = "cosineannealinglr";
  c.momentum = 0.9;
  c.nesterov = true;
  c.weight_decay = 1e-300;
  c.label_smoothing = 0.1;
  c.seed = INT64_MAX;
  c.threads = 2;
  c.workers = 0;
  c.shuffle = false;
  c.limit = 5;
  c.max_steps = 6;
  c.log_every = 8;
  c.checkpoint_every = 9;
  c.backend = "reference";
  c.precision = "f64";
  c.weights = "w.safetensors";
  c.stem_padding = 0;
  return c;
}

TEST(Config, TheDefaultsAreTheLecturesRecipe) {
  const TrainConfig c;
  EXPECT_EQ(c.model, "lecture_resnet18");
  EXPECT_EQ(c.image_size, 96);
  EXPECT_EQ(c.epochs, 10);
  EXPECT_EQ(c.batch_size, 256);
  EXPECT_EQ(c.lr, 0.05);
  EXPECT_EQ(c.momentum, 0);
  EXPECT_NO_THROW(validate(c));
}

TEST(Config, TomlRoundTripsEverySettingExactly) {
  const TrainConfig written = unusual();
  EXPECT_EQ(differences(written, TrainConfig{}).size(), 23u) << "every setting is off its default here";
  TrainConfig read;
  apply_toml("c.toml", to_toml(written), read);
  EXPECT_EQ(differences(read, written), std::vector<std::string>{});
  EXPECT_EQ(to_toml(read), to_toml(written));
  EXPECT_EQ(read.data, written.data);
  EXPECT_EQ(read.lr, written.lr);
  EXPECT_NO_THROW(validate(read));
}

TEST(Config, OnlyWhatTheTextNamesChanges) {
  TrainConfig c;
  apply_toml("c.toml", "lr = 1\n[model]\nstem_padding = 0\n", c);
  EXPECT_EQ(differences(c, TrainConfig{}),
            (std::vector<std::string>{"lr: 1.0, was 0.05", "model.stem_padding: 0, was 3"}));
}

TEST(Config, UnknownKeysAndWrongTypesNameTheKeyAndTheFile) {
  TrainConfig c;
  expect_user_error([&] { apply_toml("c.toml", "bath_size = 4", c); }, {"c.toml", "bath_size", "batch_size"});
  expect_user_error([&] { apply_toml("c.toml", "batch_size = 4.5", c); }, {"c.toml", "batch_size", "integer"});
  expect_user_error([&] { apply_toml("c.toml", "lr = \"0.1\"", c); }, {"lr", "number"});
  expect_user_error([&] { apply_toml("c.toml", "shuffle = 1", c); }, {"shuffle", "true or false"});
  expect_user_error([&] { apply_toml("c.toml", "data = [1]", c); }, {"data", "string"});
  expect_user_error([&] { apply_toml("c.toml", "[model]\nwidth = 3", c); }, {"model.width"});
  expect_user_error([&] { apply_toml("c.toml", "lr = = 3", c); }, {"c.toml", "line 1"});
  EXPECT_EQ(differences(c, TrainConfig{}), std::vector<std::string>{});
}

TEST(Config, SetTakesOneAssignmentOfAnyType) {
  TrainConfig c;
  apply_setting("lr=1e-3", c);
  apply_setting("epochs=4", c);
  apply_setting("shuffle=false", c);
  apply_setting("data=some folder/with spaces", c);
  apply_setting("weights=", c);
  apply_setting("model.stem_padding=0", c);
  EXPECT_EQ(c.lr, 1e-3);
  EXPECT_EQ(c.epochs, 4);
  EXPECT_FALSE(c.shuffle);
  EXPECT_EQ(c.data, "some folder/with spaces");
  EXPECT_EQ(c.stem_padding, 0);
  expect_user_error([&] { apply_setting("lr", c); }, {"--set", "key=value"});
  expect_user_error([&] { apply_setting("l=3", c); }, {"'l'", "lr"});
  expect_user_error([&] { apply_setting("lr=fast", c); }, {"lr", "fast"});
  expect_user_error([&] { apply_setting("epochs=2.5", c); }, {"epochs", "integer"});
  expect_user_error([&] { apply_setting("lr=0.1\nepochs=5", c); }, {"lr"});
  EXPECT_EQ(c.epochs, 4) << "a second line in the value set something else";
}

TEST(Config, ValuesOutOfRangeNameTheFlag) {
  const std::vector<std::pair<std::string, std::string>> wrong = {{"image_size=0", "--image-size"},
                                                                  {"epochs=0", "--epochs"},
                                                                  {"batch_size=0", "--batch-size"},
                                                                  {"batch_size=65537", "--batch-size"},
                                                                  {"lr=-1", "--lr"},
                                                                  {"lr=nan", "--lr"},
                                                                  {"lr=inf", "--lr"},
                                                                  {"momentum=1", "--momentum"},
                                                                  {"weight_decay=-1", "--weight-decay"},
                                                                  {"label_smoothing=1", "--label-smoothing"},
                                                                  {"nesterov=true", "--nesterov"},
                                                                  {"seed=-1", "--seed"},
                                                                  {"lr_scheduler=step", "--lr-scheduler"},
                                                                  {"threads=-1", "--threads"},
                                                                  {"workers=65", "--workers"},
                                                                  {"limit=-1", "--limit"},
                                                                  {"log_every=0", "--log-every"},
                                                                  {"backend=cuda", "--backend"},
                                                                  {"precision=f16", "--precision"},
                                                                  {"precision=f64", "--precision"},
                                                                  {"model.stem_padding=7", "stem_padding"},
                                                                  {"max_steps=-1", "--max-steps"},
                                                                  {"checkpoint_every=-1", "--checkpoint-every"}};
  for (const auto& [setting, flag] : wrong) {
    TrainConfig c;
    apply_setting(setting, c);
    expect_user_error([&] { validate(c); }, {flag, "expected"});
  }
}

TEST(Config, TheCosineGoesFromTheRateToZero) {
  TrainConfig c;
  c.lr = 0.5;
  EXPECT_EQ(learning_rate(c, 7, 10), 0.5);
  c.lr_scheduler = "cosineannealinglr";
  EXPECT_DOUBLE_EQ(learning_rate(c, 0, 10), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(c, 5, 10), 0.25);
  EXPECT_NEAR(learning_rate(c, 10, 10), 0, 1e-17);
}

}  // namespace
}  // namespace resnet

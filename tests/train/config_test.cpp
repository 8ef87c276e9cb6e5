#include "train/config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/evaluate.h"

namespace resnet {
namespace {

using testing::expect_user_error;

TrainConfig unusual() {
  TrainConfig c;
  c.model = "resnet18";
  c.data = "a \"quoted\" \\ folder\n";
  c.image_size = 33;
  c.resize = "shortest";
  c.crop_pct = 0.875;
  c.exif_orientation = true;
  c.interpolation = "bicubic";
  c.exif_orientation = true;
  c.mean = {0.5, 1e-3, 2};
  c.std = {0.25, 3, 0.1};
  c.epochs = 3;
  c.channels = 3;
  c.on_bad_sample = "skip";
  c.batch_size = 7;
  c.lr = 0.1 + 0.2;  // has no short decimal
  c.lr_scheduler = "multisteplr";
  c.lr_step_size = 4;
  c.lr_gamma = 0.5;
  c.lr_milestones = {1, 82, 123};
  c.lr_warmup_epochs = 0.25;
  c.lr_warmup_method = "linear";
  c.lr_warmup_decay = 0;
  c.momentum = 0.9;
  c.nesterov = true;
  c.weight_decay = 1e-300;
  c.label_smoothing = 0.1;
  c.random_crop_padding = 4;
  c.hflip_prob = 0.5;
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
  c.reset_head = true;
  c.disabled_passes = "fuse_batch_norm_tail,fold_batch_norm";
  c.stem_padding = 0;
  c.batch_norm = false;
  c.zero_init_residual = true;
  c.init = "xavier";
  c.blocks = {3, 4, 6, 3};
  c.drop_path = 0.1;
  return c;
}

TEST(Config, ResetsTheResizeThatASourceDoesNotGive) {
  TrainConfig c;
  c.crop_pct = 0.875;
  reset_the_resize_not_given(apply_toml("c.toml", "resize_size = 40\nlr = 1\n", c), c);
  EXPECT_EQ(c.resize_size, 40);
  EXPECT_EQ(c.crop_pct, 1);
  reset_the_resize_not_given({apply_setting("crop_pct=0.5", c)}, c);
  EXPECT_EQ(c.resize_size, 0);
  EXPECT_EQ(c.crop_pct, 0.5);
  reset_the_resize_not_given({apply_setting("lr=2", c)}, c);
  EXPECT_EQ(c.crop_pct, 0.5) << "neither was given";
  reset_the_resize_not_given(apply_toml("c.toml", "resize_size = 40\ncrop_pct = 0.5\n", c), c);
  EXPECT_EQ(c.resize_size, 40) << "both: that is for validate() to refuse";
  EXPECT_EQ(c.crop_pct, 0.5);
}

TEST(Config, TheDefaultsAreTheLecturesRecipe) {
  const TrainConfig c;
  EXPECT_EQ(c.model, "lecture_resnet18");
  EXPECT_EQ(c.image_size, 96);
  EXPECT_EQ(c.epochs, 10);
  EXPECT_EQ(c.batch_size, 256);
  EXPECT_EQ(c.lr, 0.05);
  EXPECT_EQ(c.momentum, 0);
  EXPECT_EQ(learning_rate(c, 0, 235), 0.05);
  EXPECT_EQ(learning_rate(c, 2349, 235), 0.05);
  EXPECT_EQ(c.random_crop_padding, 0);
  EXPECT_EQ(c.hflip_prob, 0);
  EXPECT_NO_THROW(validate(c));
}

TEST(Config, TomlRoundTripsEverySettingExactly) {
  const TrainConfig written = unusual();
  const std::string text = to_toml(written), defaults = to_toml(TrainConfig{});
  const auto lines = std::count(defaults.begin(), defaults.end(), '\n');  // a comment, then one a setting
  // resize_size and crop_pct are not for use together.
  EXPECT_EQ(differences(written, TrainConfig{}).size() + 2, static_cast<size_t>(lines))
      << "every setting but resize_size is off its default here";
  EXPECT_NE(text.find("\nmean = [0.5, 0.001, 2.0]\n"), std::string::npos) << text;
  EXPECT_NE(text.find("\nlr_milestones = [1, 82, 123]\n"), std::string::npos) << text;
  TrainConfig read;
  apply_toml("c.toml", text, read);
  EXPECT_EQ(differences(read, written), std::vector<std::string>{});
  EXPECT_EQ(to_toml(read), to_toml(written));
  EXPECT_EQ(read.data, written.data);
  EXPECT_EQ(read.lr, written.lr);
  EXPECT_EQ(read.lr_milestones, written.lr_milestones);
  EXPECT_EQ(read.mean, written.mean);
  EXPECT_NO_THROW(validate(read));
}

TEST(Config, ThePreprocessingIsTheLecturesUnlessAskedOtherwise) {
  TrainConfig c;
  EXPECT_EQ(preprocessing(c), Preprocessing{});
  c.image_size = 224;
  c.resize = "shortest";
  c.resize_size = 256;
  c.interpolation = "lanczos";
  for (const char* setting : {"mean=0.485,0.456,0.406", "std=[0.229, 0.224, 1]"}) apply_setting(setting, c);
  validate(c);
  EXPECT_EQ(preprocessing(c), (Preprocessing{.image_size = 224,
                                             .resize = ResizeRule::shortest,
                                             .resize_size = 256,
                                             .crop_pct = 0.875,
                                             .interpolation = Interpolation::lanczos,
                                             .mean = {0.485f, 0.456f, 0.406f},
                                             .std = {0.229f, 0.224f, 1}}));
  const auto refuses = [](const char* setting, const char* part) {
    TrainConfig wrong;
    apply_setting(setting, wrong);
    expect_user_error([&] { validate(wrong); }, {part});
  };
  refuses("resize=crop", "squash or shortest");
  refuses("interpolation=cubic", "bicubic");
  refuses("crop_pct=0", "--crop-pct");
  refuses("crop_pct=nan", "--crop-pct");
  refuses("resize_size=9000", "--resize-size");
  refuses("mean=inf", "--mean");
  refuses("std=1,0,1", "--std");
  refuses("std=1e-60", "--std");
  c.std.pop_back();
  expect_user_error([&] { validate(c); }, {"std", "2 values"});
  c = {};
  c.resize_size = 100;
  c.crop_pct = 0.5;
  expect_user_error([&] { validate(c); }, {"--crop-pct", "--resize-size"});
  for (const std::string wrong : {"[7, \"8\"]", "[[7]]", "7", "[true]"}) {
    expect_user_error([&] { apply_toml("c.toml", "mean = " + wrong, c); }, {"c.toml", "mean", "a list of numbers"});
  }
}

TEST(Config, AListIsReplacedAsAWholeAndComparedAsAWhole) {
  TrainConfig c = unusual();
  apply_toml("c.toml", to_toml(TrainConfig{}), c);
  EXPECT_EQ(c.lr_milestones, std::vector<int64_t>{}) << "an empty list is a value too";
  apply_toml("c.toml", "lr_milestones = [\n  3,\n  4,\n]\n", c);
  EXPECT_EQ(c.lr_milestones, (std::vector<int64_t>{3, 4}));
  EXPECT_EQ(differences(c, TrainConfig{}), std::vector<std::string>{"lr_milestones: [3, 4], was []"});
  TrainConfig longer = c;
  longer.lr_milestones.push_back(5);
  EXPECT_EQ(differences(longer, c), std::vector<std::string>{"lr_milestones: [3, 4, 5], was [3, 4]"});
  // A wrong element leaves the list as it was.
  for (const std::string wrong : {"[7, 8.5]", "[7, \"8\"]", "[[7]]", "7", "\"7\"", "[{a = 7}]"}) {
    expect_user_error([&] { apply_toml("c.toml", "lr_milestones = " + wrong, c); },
                      {"c.toml", "lr_milestones", "a list of integers"});
    EXPECT_EQ(c.lr_milestones, (std::vector<int64_t>{3, 4})) << wrong;
  }
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
  apply_setting("lr_milestones=82,123", c);
  EXPECT_EQ(c.lr_milestones, (std::vector<int64_t>{82, 123}));
  apply_setting("lr_milestones=[5, 6]", c);
  EXPECT_EQ(c.lr_milestones, (std::vector<int64_t>{5, 6}));
  apply_setting("lr_milestones=", c);
  EXPECT_EQ(c.lr_milestones, std::vector<int64_t>{});
  apply_setting("lr_milestones=7", c);
  EXPECT_EQ(c.lr_milestones, std::vector<int64_t>{7});
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
  expect_user_error([&] { apply_setting("lr_milestones=1.5", c); }, {"lr_milestones", "integers"});
  expect_user_error([&] { apply_setting("lr_milestones=1;2", c); }, {"lr_milestones", "'1;2'"});
  expect_user_error([&] { apply_setting("lr_milestones=[8]\nepochs=5", c); }, {"lr_milestones"});
  expect_user_error([&] { apply_setting("lr_milestones=8]\nepochs=[5", c); }, {"lr_milestones"});
  EXPECT_EQ(c.lr_milestones, std::vector<int64_t>{7});
  EXPECT_EQ(c.epochs, 4) << "a second line in the value set something else";
}

TEST(Config, TheModelsOptionsAreSettings) {
  TrainConfig c;
  EXPECT_EQ(model_options(c), ModelOptions{});
  apply_setting("model.batch_norm=false", c);
  apply_setting("model.zero_init_residual=true", c);
  apply_toml("c.toml", "[model]\ninit = \"pytorch\"\nstem_padding = 1\n", c);
  const ModelOptions expected{
      .stem_padding = 1, .batch_norm = false, .zero_init_residual = true, .init = WeightInit::pytorch};
  EXPECT_EQ(model_options(c), expected);
  apply_setting("model.blocks=[3,4,6,3]", c);
  apply_setting("model.drop_path=0.25", c);
  EXPECT_EQ(model_options(c).blocks, (StageLayout{3, 4, 6, 3}));
  EXPECT_EQ(model_options(c).drop_path, 0.25);
  apply_toml("c.toml", "[model]\nblocks = [2, 2]\ndrop_path = 0\n", c);
  EXPECT_EQ(model_options(c).blocks, (StageLayout{2, 2}));
  EXPECT_EQ(model_options(c).drop_path, 0);
  for (const auto& blocks : {std::vector<int64_t>{3, 0}, {-1}, {201}, {1, 1, 1, 1, 1, 1, 1}}) {
    c.blocks = blocks;
    expect_user_error([&] { validate(c); }, {"model.blocks", "1 to 6 stages"});
  }
  c.blocks = {};
  for (const double rate : {1.0, -0.5, std::nan("")}) {
    c.drop_path = rate;
    expect_user_error([&] { validate(c); }, {"model.drop_path", "[0, 1)"});
  }
  c.drop_path = 0;
  expect_user_error([&] { apply_setting("model.batch_norm=0", c); }, {"model.batch_norm", "true or false"});
  expect_user_error([&] { apply_setting("model.batchnorm=true", c); }, {"model.batchnorm", "model.batch_norm"});
  c.init = "normal";
  expect_user_error([&] { model_options(c); }, {"model.init", "'normal'", "kaiming, pytorch or xavier"});
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
                                                                  {"lr_scheduler=multisteplr", "--lr-milestones"},
                                                                  {"lr_step_size=0", "--lr-step-size"},
                                                                  {"lr_gamma=-0.1", "--lr-gamma"},
                                                                  {"lr_gamma=1.5", "--lr-gamma"},
                                                                  {"lr_gamma=nan", "--lr-gamma"},
                                                                  {"lr_milestones=0,5", "--lr-milestones: 0"},
                                                                  {"lr_milestones=5,5", "--lr-milestones: 5"},
                                                                  {"lr_milestones=6,5", "--lr-milestones: 5"},
                                                                  {"lr_milestones=1000001", "--lr-milestones"},
                                                                  {"lr_milestones=5", "multisteplr"},
                                                                  {"lr_warmup_epochs=-1", "--lr-warmup-epochs"},
                                                                  {"lr_warmup_epochs=10.5", "--lr-warmup-epochs"},
                                                                  {"lr_warmup_epochs=nan", "--lr-warmup-epochs"},
                                                                  {"lr_warmup_method=cosine", "--lr-warmup-method"},
                                                                  {"lr_warmup_decay=-1", "--lr-warmup-decay"},
                                                                  {"lr_warmup_decay=1.1", "--lr-warmup-decay"},
                                                                  {"random_crop_padding=-1", "--random-crop-padding"},
                                                                  {"random_crop_padding=96", "--random-crop-padding"},
                                                                  {"hflip_prob=-0.5", "--hflip-prob"},
                                                                  {"hflip_prob=1.5", "--hflip-prob"},
                                                                  {"hflip_prob=nan", "--hflip-prob"},
                                                                  {"threads=-1", "--threads"},
                                                                  {"workers=65", "--workers"},
                                                                  {"limit=-1", "--limit"},
                                                                  {"log_every=0", "--log-every"},
                                                                  {"backend=cuda", "--backend"},
                                                                  {"precision=f16", "--precision"},
                                                                  {"precision=f64", "--precision"},
                                                                  {"model.stem_padding=7", "stem_padding"},
                                                                  {"model.init=he", "model.init"},
                                                                  {"max_steps=-1", "--max-steps"},
                                                                  {"checkpoint_every=-1", "--checkpoint-every"}};
  for (const auto& [setting, flag] : wrong) {
    TrainConfig c;
    apply_setting(setting, c);
    expect_user_error([&] { validate(c); }, {flag, "expected"});
  }
}

TEST(Config, ValuesAtTheEndsOfTheirRangesAreTaken) {
  TrainConfig c;
  for (const char* setting :
       {"lr_gamma=0", "lr_gamma=1", "lr_warmup_epochs=10", "lr_warmup_decay=0", "lr_warmup_decay=1",
        "random_crop_padding=95", "hflip_prob=1", "lr_milestones=1,1000000", "lr_scheduler=multisteplr"}) {
    apply_setting(setting, c);
  }
  EXPECT_NO_THROW(validate(c));
}

/// Ten epochs of four steps; the rates expected below are those of torch.optim.lr_scheduler, computed by hand.
TrainConfig scheduled(const char* scheduler) {
  TrainConfig c;
  c.lr = 0.5;
  c.epochs = 10;
  c.lr_scheduler = scheduler;
  return c;
}

struct Expected {
  int64_t step;
  double rate;
};

void expect_rates(const TrainConfig& config, const std::vector<Expected>& expected) {
  EXPECT_NO_THROW(validate(config));
  for (const Expected& e : expected) EXPECT_NEAR(learning_rate(config, e.step, 4), e.rate, 1e-15) << e.step;
}

TEST(LearningRate, ConstantIsTheRateOfEveryStep) {
  for (int64_t step = 0; step < 40; ++step) EXPECT_EQ(learning_rate(scheduled("constant"), step, 4), 0.5) << step;
}

// CosineAnnealingLR(T_max=40), stepped after every batch: 0.5 * (1 + cos(pi * step / 40)) / 2.
TEST(LearningRate, CosineGoesFromTheRateToZeroStepByStep) {
  expect_rates(scheduled("cosineannealinglr"), {{0, 0.5},
                                                {1, 0.499229333433282},
                                                {10, 0.42677669529663687},
                                                {20, 0.25},
                                                {30, 0.07322330470336313},
                                                {39, 0.000770666566718009},
                                                {40, 0}});
}

// StepLR(step_size=3, gamma=0.1) once an epoch.
TEST(LearningRate, StepDecaysAfterEveryStepSize) {
  TrainConfig c = scheduled("steplr");
  c.lr_step_size = 3;
  expect_rates(c, {{0, 0.5}, {11, 0.5}, {12, 0.05}, {23, 0.05}, {24, 0.005}, {35, 0.005}, {36, 0.0005}, {39, 0.0005}});
  c.lr_gamma = 0;
  expect_rates(c, {{11, 0.5}, {12, 0}, {39, 0}});
}

// MultiStepLR(milestones=[2, 5, 6], gamma=0.5) once an epoch.
TEST(LearningRate, MultiStepDecaysAtEachMilestone) {
  TrainConfig c = scheduled("multisteplr");
  c.lr_milestones = {2, 5, 6};
  c.lr_gamma = 0.5;
  expect_rates(c, {{0, 0.5}, {7, 0.5}, {8, 0.25}, {19, 0.25}, {20, 0.125}, {23, 0.125}, {24, 0.0625}, {39, 0.0625}});
  c.lr_milestones = {10, 20};  // of a longer run
  expect_rates(c, {{0, 0.5}, {39, 0.5}});
}

// SequentialLR([LinearLR(start_factor=0.1, total_iters=6), CosineAnnealingLR(T_max=34)], milestones=[6]), stepped after
// every batch.
TEST(LearningRate, LinearWarmUpRisesToTheRateWhereTheCosineStarts) {
  TrainConfig c = scheduled("cosineannealinglr");
  c.lr_warmup_epochs = 1.5;
  c.lr_warmup_method = "linear";
  c.lr_warmup_decay = 0.1;
  expect_rates(c, {{0, 0.05},
                   {1, 0.125},
                   {2, 0.2},
                   {3, 0.275},
                   {4, 0.35},
                   {5, 0.425},
                   {6, 0.5},
                   {23, 0.25},
                   {39, 0.0010664559262413553},
                   {40, 0}});
}

// SequentialLR([ConstantLR(factor=0.1, total_iters=2), MultiStepLR([2, 5])], milestones=[2]) once an epoch.
TEST(LearningRate, ConstantWarmUpMovesTheMilestonesBehindIt) {
  TrainConfig c = scheduled("multisteplr");
  c.lr_milestones = {2, 5};
  c.lr_warmup_epochs = 2;
  c.lr_warmup_decay = 0.1;
  expect_rates(c, {{0, 0.05}, {7, 0.05}, {8, 0.5}, {15, 0.5}, {16, 0.05}, {27, 0.05}, {28, 0.005}, {39, 0.005}});
  c = scheduled("steplr");
  c.lr_step_size = 3;
  c.lr_warmup_epochs = 2;
  expect_rates(c, {{0, 0.005}, {7, 0.005}, {8, 0.5}, {19, 0.5}, {20, 0.05}, {31, 0.05}, {32, 0.005}});
}

TEST(LearningRate, AWarmUpIsRoundedToWholeStepsAndMayBeTheWholeRun) {
  TrainConfig c = scheduled("constant");
  c.lr_warmup_method = "linear";
  c.lr_warmup_decay = 0;
  c.lr_warmup_epochs = 0.3;  // 1.2 steps
  expect_rates(c, {{0, 0}, {1, 0.5}, {39, 0.5}});
  c.lr_warmup_epochs = 0.1;  // 0.4 steps
  expect_rates(c, {{0, 0.5}, {1, 0.5}});
  c.lr_scheduler = "cosineannealinglr";
  c.lr_warmup_epochs = 10;
  expect_rates(c, {{0, 0}, {20, 0.25}, {39, 0.4875}, {40, 0.5}});
}

}  // namespace
}  // namespace resnet

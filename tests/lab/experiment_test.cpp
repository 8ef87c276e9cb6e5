// The lecture's claims at sizes a test can afford, on real images, and the probes behind them.

#include "lab/experiment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <filesystem>

#include "data/idx_folder.h"
#include "lab/common.h"
#include "lab/probe.h"
#include "runtime/on_backend.h"
#include "train/training_step.h"

namespace resnet {
namespace {

const Dataset& images() {
  static const Dataset data = load_dataset("fashion-mnist", Split::train);
  return data;
}

SpecimenOptions small(const std::string& model, int64_t batch = 8) {
  return {.model = model, .batch_size = batch, .limit = 64, .seed = 1, .threads = 2};
}

double norm_of(const Tensor& tensor) {
  double sum = 0;
  for (const float v : tensor.as<float>()) sum += static_cast<double>(v) * v;
  return std::sqrt(sum);
}

TEST(LayerProbe, GivesTheNormsOfTheTrainingStepsOwnGradients) {
  const testing::PrivateTuningCache cache;
  Specimen net(images(), small("resnet8_cifar_b"));
  const LayerGradients probed = LayerProbe(net).measure();
  Program& step = net.compile(make_training_step(
      net.spec(), {.model = net.model_options(), .images = net.images(), .gradient_outputs = true, .passes = {}}));
  net.run_on_first_batch(step);
  EXPECT_NEAR(step.scalar("loss"), probed.loss, 1e-6 * probed.loss);
  EXPECT_EQ(probed.layers.size(), 1u + 6 + 2 + 1)
      << "stem, six convolutions of three blocks, two shortcuts, classifier";
  EXPECT_EQ(probed.first().layer, "conv1");
  EXPECT_EQ(probed.last().layer, "layer3.0.conv2");
  EXPECT_EQ(probed.layers.back().layer, "linear");
  for (const LayerGradient& g : probed.layers) {
    const double expected = norm_of(step.output("gradient:" + g.layer + ".weight"));
    EXPECT_GT(expected, 0) << g.layer;
    EXPECT_NEAR(g.weight, expected, 1e-4 * expected) << g.layer;
    EXPECT_GT(g.output, 0) << g.layer;
  }
}

TEST(ResidualSums, AreFoundInAnyModelWithTheirForkAndBranch) {
  const auto sums_of = [](const std::string& model) {
    Graph graph;
    ModelBuilder builder{graph, DType::f32, true, {}};
    const Value x = graph.input("images", {DType::f32, {2, 3, 32, 32}});
    graph.set_output("logits", find_model(model).build(Scope(builder), x, {}));
    std::vector<std::string> found;
    for (const ResidualSum& s : residual_sums(graph, x)) {
      EXPECT_EQ(graph.node(s.branch).op->name, "batch_norm");
      found.push_back(s.shortcut == s.fork ? "identity" : std::string(graph.node(s.shortcut).op->name));
    }
    return found;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(sums_of("resnet8_cifar_a"), (Names{"identity", "pad_channels", "pad_channels"}));
  EXPECT_EQ(sums_of("resnet8_cifar_b"), (Names{"identity", "batch_norm", "batch_norm"}));
  EXPECT_EQ(sums_of("resnet18"), (Names{"identity", "identity", "batch_norm", "identity", "batch_norm", "identity",
                                        "batch_norm", "identity"}));
  EXPECT_EQ(sums_of("lecture_resnet18"),
            (Names{"identity", "identity", "conv2d", "identity", "conv2d", "identity", "conv2d", "identity"}));
  EXPECT_EQ(sums_of("plain20_cifar"), Names{});
}

TEST(BlockProbe, TheGradientIsTheShortcutsPlusTheBranchs) {
  const testing::PrivateTuningCache cache;
  for (const char* model : {"resnet20_cifar_a", "resnet14_cifar_b", "lecture_resnet18", "resnet8_mlp"}) {
    Specimen net(images(), small(model));
    BlockProbe probe(net);
    for (const int trained : {0, 1}) {
      if (trained) net.train_step(0.05);
      for (const BlockGradient& b : probe.measure()) {
        EXPECT_GT(b.shortcut, 0) << model;
        EXPECT_GT(b.branch, 0) << model;
        EXPECT_GT(b.largest_total, 0) << model;
        EXPECT_LE(b.largest_gap, 1e-5 * b.largest_total) << model;
        EXPECT_GT(b.branch_share, 0) << model;
      }
    }
  }
  Specimen plain(images(), small("plain8_cifar"));
  EXPECT_THROW(BlockProbe{plain}, UserError);
}

TEST(GradientFlow, WithoutBatchNormThePlainNetsGradientVanishesAndTheResidualNetsDoesNot) {
  const testing::PrivateTuningCache cache;
  const auto ratio = [](Kind kind) {
    LabConfig config;
    config.limit = 64;
    config.threads = 2;
    Specimen net(images(), specimen_options(config, cifar_name(kind, 56), 4, false));
    return LayerProbe(net).measure().first_over_last();
  };
  const double plain = ratio(Kind::plain), residual = ratio(Kind::residual);
  EXPECT_LT(plain, 1e-6);
  EXPECT_GT(residual, 1e-2);
}

TEST(Nesting, TheDeeperResidualNetIsTheShallowerOneExactlyAndThePlainOneIsNot) {
  const testing::PrivateTuningCache cache;
  LabConfig config;
  config.depths = {8, 14};
  config.steps = 4;
  config.batch_size = 16;
  config.limit = 64;
  config.quick = true;
  config.threads = 2;
  double last_share = 0;
  LabObserver observer;
  observer.on_progress = [&](const std::string& what, double done, double) {
    EXPECT_FALSE(what.empty());
    EXPECT_GE(done, last_share);
    last_share = done;
  };
  const Report report = find_experiment("nesting").run(config, observer);
  EXPECT_NEAR(last_share, 1, 1e-9);
  const auto& rows = report.tables.at(0).rows;
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0][0], "residual");
  EXPECT_EQ(rows[0][2], "0") << "the largest difference of logits";
  EXPECT_EQ(rows[0][3], rows[0][4]) << "the loss before and after";
  for (const size_t plain : {1u, 2u}) {
    EXPECT_EQ(rows[plain][0], "plain");
    EXPECT_NE(rows[plain][2], "0");
  }
  EXPECT_EQ(report.tables.at(1).rows.size(), 4u * 4) << "four nets trained on, a row a step";
  EXPECT_EQ(report.command,
            "resnet lab nesting --quick --depths 8,14 --steps 4 --limit 64 --batch-size 16 --threads 2");
}

TEST(Degradation, ResumesItsRunsAndReportsEverySeed) {
  const testing::PrivateTuningCache cache;
  const TemporaryDirectory directory;
  LabConfig config;
  config.depths = {8};
  config.epochs = 1;
  config.seeds = 2;
  config.data = directory / "data";
  testing_data::write_idx_folder(config.data, 1);
  config.image_size = 16;
  config.limit = 16;
  config.batch_size = 8;
  config.threads = 2;
  config.output = directory / "lab";
  const Report first = find_experiment("degradation").run(config, {});
  ASSERT_EQ(first.tables.at(0).rows.size(), 2u);
  EXPECT_EQ(first.tables[0].rows[0][2], "0") << "none diverged";
  EXPECT_EQ(first.tables.at(1).rows.size(), 4u) << "two nets, two seeds, one epoch";
  ASSERT_EQ(first.figures.at(0).panels.size(), 2u);
  EXPECT_EQ(first.figures[0].panels[0].series.at(0).low.size(), 1u) << "a band over the seeds";
  // The second time everything is there already.
  std::string run;
  for (const std::string& name : names_in(config.output + "/runs")) {
    if (name.starts_with("plain8_cifar-seed0-")) run = config.output + "/runs/" + name;
  }
  const auto before = std::filesystem::last_write_time(run + "/best.safetensors");
  const Report second = find_experiment("degradation").run(config, {});
  EXPECT_EQ(second.tables[1].rows, first.tables[1].rows);
  EXPECT_EQ(std::filesystem::last_write_time(run + "/best.safetensors"), before);
  // Another size of images is another run, not one that cannot be resumed.
  config.image_size = 12;
  EXPECT_NO_THROW(find_experiment("degradation").run(config, {}));
}

TEST(Experiments, StopAtASignalAndRefuseWhatTheyCannotDo) {
  const std::atomic<int> signal = SIGINT;
  LabObserver observer;
  observer.stop_signal = &signal;
  LabConfig config;
  config.quick = true;
  for (const Experiment& experiment : all_experiments()) {
    EXPECT_THROW(experiment.run(config, observer), Interrupted) << experiment.name;
  }
  EXPECT_THROW(find_experiment("gradient"), UserError);
  config.depths = {21};
  EXPECT_THROW(find_experiment("gradient-flow").run(config, {}), UserError) << "21 is not 6n+2";
  config.depths = {32, 20};
  EXPECT_THROW(find_experiment("nesting").run(config, {}), UserError);
  EXPECT_THROW(validate(config), UserError) << "descending depths";
  config.depths = {20, 20};
  EXPECT_THROW(validate(config), UserError) << "a depth given twice";
  config.depths = {20, 32};
  EXPECT_NO_THROW(validate(config));
  config.batch_size = 1;
  EXPECT_THROW(validate(config), UserError);
}

TEST(Common, TheCommandHoldsWhatTheExperimentTakesQuotedForAShell) {
  LabConfig config;
  config.data = "my photos'";
  config.depths = {8};
  config.layers = 14;
  config.steps = 3;
  config.batch_norm = "off";
  config.epochs = 2;
  const std::string data = R"( --data 'my photos'\''')";
  EXPECT_EQ(command_of("identity", config), "resnet lab identity" + data + " --depths 8 --steps 3");
  EXPECT_EQ(command_of("depth", config), "resnet lab depth" + data + " --layers 14 --steps 3");
  EXPECT_EQ(command_of("mlp", config), "resnet lab mlp" + data + " --depths 8 --batch-norm off --steps 3");
}

TEST(Common, SmoothingIsTheMeanOfTheLastValues) {
  const std::vector<double> gap = smoothed({1, std::nan(""), 3, 5}, 2);
  EXPECT_TRUE(std::isnan(gap[2]));
  EXPECT_EQ(gap[3], 4) << "a NaN ends with its window";
  EXPECT_EQ(smoothed({1, 2, 3, 4}, 2), (std::vector<double>{1, 1.5, 2.5, 3.5}));
  EXPECT_EQ(smoothed({5}, 10), std::vector<double>{5});
  EXPECT_EQ(number_cell(1e-7), "1.00e-07");
  EXPECT_EQ(number_cell(0), "0");
  EXPECT_EQ(number_cell(std::nan("")), "not finite");
}

}  // namespace
}  // namespace resnet

// The C++ interface against the C interface, which resnet_test.cpp holds against the inside.

#include <gtest/gtest.h>
#include <resnet/resnet.hpp>

#include <fstream>
#include <iterator>
#include <thread>

#include "api/model_file.h"
#include "formats/temporary_directory.h"

namespace {

using resnet::Classifier;
using resnet::Image;
using Names = std::vector<std::string>;

std::string photo(const char* name) { return std::string(RESNET_SOURCE_DIR) + "/tests/data/photos/" + name; }

class CppLibrary : public ::testing::Test {
 protected:
  CppLibrary() { resnet_tests::write_model_file(path_, 1); }

  std::vector<float> expected(const resnet_image& image) const {
    resnet_classifier* classifier = nullptr;
    std::vector<float> logits(5);
    EXPECT_EQ(resnet_open(path_.c_str(), nullptr, &classifier), RESNET_OK) << resnet_last_error();
    EXPECT_EQ(resnet_logits(classifier, &image, 1, logits.data()), RESNET_OK) << resnet_last_error();
    resnet_close(classifier);
    return logits;
  }

  resnet::TemporaryDirectory folder_;
  std::string path_ = folder_ / "model.safetensors";
};

TEST_F(CppLibrary, TellsOfTheModel) {
  const Classifier classifier(path_);
  EXPECT_EQ(classifier.architecture(), "resnet20_cifar_a");
  EXPECT_EQ(classifier.class_count(), 5u);
  EXPECT_EQ(classifier.class_names(), (Names{"ant", "bee", "cat", "dog", "elk"}));
  EXPECT_EQ(classifier.channels(), 3);
  EXPECT_EQ(classifier.input_size(), 20);
}

TEST_F(CppLibrary, EveryKindOfImageGivesTheLogitsThatCGives) {
  Classifier classifier(path_);
  std::vector<std::uint8_t> pixels(30 * 40 * 3);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<std::uint8_t>(i * i % 251);
  const std::uint8_t* data = pixels.data();
  EXPECT_EQ(classifier.logits(Image::hwc(data, 30, 40)), expected(resnet_image_hwc(data, 30, 40, 3)));
  EXPECT_EQ(classifier.logits(Image::chw(data, 3, 30, 40)), expected(resnet_image_chw(data, 3, 30, 40)));
  EXPECT_NE(classifier.logits(Image::hwc(data, 30, 40)), classifier.logits(Image::chw(data, 3, 30, 40)));
  const std::string path = photo("cat.png");
  const std::vector<float> logits = expected(resnet_image_file(path.c_str()));
  EXPECT_EQ(classifier.logits(path), logits);
  EXPECT_EQ(classifier.logits(Image(resnet_image_file(path.c_str()))), logits);
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(classifier.logits(Image::encoded(bytes.data(), bytes.size())), logits);
}

TEST_F(CppLibrary, ClassifiesOneImageOrMany) {
  resnet::Options options;
  options.threads = 1;
  options.max_batch = 4;
  Classifier classifier(path_, options);
  const std::vector<Image> images(7, Image(photo("rocket.jpg")));
  const auto best = classifier.classify(images, 100);
  ASSERT_EQ(best.size(), 7u);
  double sum = 0;
  ASSERT_EQ(best[0].size(), 5u) << "k is cut to the number of classes";
  for (const resnet::Prediction& p : best[0]) {
    EXPECT_EQ(p.name, classifier.class_names()[p.index]);
    EXPECT_LE(p.probability, best[0][0].probability);
    sum += p.probability;
  }
  EXPECT_NEAR(sum, 1, 1e-12);
  const auto one = classifier.classify(photo("rocket.jpg"), 2);
  ASSERT_EQ(one.size(), 2u);
  for (const auto& each : best) {
    EXPECT_EQ(each[0].index, one[0].index);
    EXPECT_NEAR(each[0].probability, one[0].probability, 1e-5) << "a batch's algorithms round as they do";
  }
  EXPECT_TRUE(classifier.classify(std::vector<Image>{}).empty());
  Classifier moved = std::move(classifier);
  EXPECT_EQ(moved.classify(photo("rocket.jpg"), 1)[0].name, one[0].name);
}

TEST_F(CppLibrary, FailuresAreErrorsWithTheCodeAndTheLine) {
  Classifier classifier(path_);
  const auto expect_error = [](resnet_status code, const std::string& part, const auto& action) {
    try {
      action();
      ADD_FAILURE() << "nothing was thrown; expected " << part;
    } catch (const resnet::Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  expect_error(RESNET_IO, "none.png", [&] { classifier.classify("none.png"); });
  expect_error(RESNET_BAD_DATA, "model.safetensors", [&] { classifier.classify(path_); });
  expect_error(RESNET_USAGE, "k is 0", [&] { classifier.classify(photo("cat.png"), 0); });
  expect_error(RESNET_IO, "none.safetensors", [] { Classifier("none.safetensors"); });
  resnet::Options options;
  options.backend = "gpu";
  expect_error(RESNET_USAGE, "gpu", [&] { Classifier(path_, options); });
}

TEST_F(CppLibrary, TwoThreadsUseTwoClassifiersAtOnce) {
  const std::string other = folder_ / "other.safetensors";
  resnet_tests::write_model_file(other, 2);
  const Names paths = {path_, other};
  resnet::Options options;
  options.threads = 2;
  std::vector<std::vector<float>> alone, found(2);
  for (const std::string& path : paths) alone.push_back(Classifier(path, options).logits(photo("cat.png")));
  ASSERT_NE(alone[0], alone[1]);
  std::vector<std::thread> threads;
  for (const size_t i : {size_t{0}, size_t{1}}) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 5; ++round) {
        Classifier classifier(paths[i], options);
        found[i] = classifier.logits(photo("cat.png"));
        if (found[i] != alone[i]) return;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(found, alone);
}

}  // namespace

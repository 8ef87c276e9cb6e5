// The C interface against the Classifier within.

#include <gtest/gtest.h>
#include <resnet/resnet.h>

#include <cstring>
#include <thread>

#include "data/decode.h"
#include "formats/temporary_directory.h"
#include "runtime/on_backend.h"
#include "serve/classifier.h"
#include "serve/small_model.h"

namespace resnet {
namespace {

using namespace testing;

constexpr int64_t kHeight = 33, kWidth = 47;

std::string photo(const char* name) { return std::string(RESNET_SOURCE_DIR) + "/tests/data/photos/" + name; }

class Library : public ::testing::Test {
 protected:
  Library() {
    path_ = folder_ / "model.safetensors";
    write_safetensors(path_, small_model(1));
    EXPECT_EQ(resnet_open(path_.c_str(), nullptr, &classifier_), RESNET_OK) << resnet_last_error();
  }
  ~Library() override { resnet_close(classifier_); }

  /// The logits within, of planar pixels [3, kHeight, kWidth].
  std::vector<float> expected(const std::vector<uint8_t>& planar) {
    const ImageView view{planar, 3, kHeight, kWidth};
    const Tensor logits = Classifier(path_).logits(std::span(&view, 1));
    return {logits.as<float>().begin(), logits.as<float>().end()};
  }
  std::vector<float> logits_of(const resnet_image& image) {
    std::vector<float> logits(5);
    EXPECT_EQ(resnet_logits(classifier_, &image, 1, logits.data()), RESNET_OK) << resnet_last_error();
    return logits;
  }
  void expect_failure(resnet_status status, resnet_status expected, const std::string& part) {
    EXPECT_EQ(status, expected);
    EXPECT_NE(std::string(resnet_last_error()).find(part), std::string::npos) << resnet_last_error();
    EXPECT_EQ(std::string(resnet_last_error()).find('\n'), std::string::npos);
  }

  PrivateTuningCache cache_;
  TemporaryDirectory folder_;
  std::string path_;
  resnet_classifier* classifier_ = nullptr;
};

TEST_F(Library, TellsOfTheModelAndOfItself) {
  const std::string version = fmt::format("{}.{}.{}", RESNET_VERSION_MAJOR, RESNET_VERSION_MINOR, RESNET_VERSION_PATCH);
  EXPECT_EQ(version, resnet_version());
  EXPECT_STREQ(resnet_architecture(classifier_), "resnet20_cifar_a");
  EXPECT_EQ(resnet_class_count(classifier_), 5u);
  EXPECT_STREQ(resnet_class_name(classifier_, 4), "elk");
  EXPECT_EQ(resnet_class_name(classifier_, 5), nullptr);
  EXPECT_EQ(resnet_channels(classifier_), 3);
  EXPECT_EQ(resnet_input_size(classifier_), 20);
  EXPECT_EQ(resnet_architecture(nullptr), nullptr);
  EXPECT_EQ(resnet_class_count(nullptr), 0u);
  EXPECT_EQ(resnet_class_name(nullptr, 0), nullptr);
  EXPECT_EQ(resnet_channels(nullptr), 0);
  EXPECT_EQ(resnet_input_size(nullptr), 0);
  resnet_close(nullptr);
}

TEST_F(Library, PixelsMayLieAnyWay) {
  const std::vector<uint8_t> planar = random_pixels(5, kHeight, kWidth);
  const std::vector<float> logits = expected(planar);
  EXPECT_EQ(logits_of(resnet_image_chw(planar.data(), 3, kHeight, kWidth)), logits);
  // RGB and, bottom-up with a gap behind each row, BGRA.
  std::vector<uint8_t> rgb(planar.size());
  const int64_t row = kWidth * 4 + 12;
  std::vector<uint8_t> bgra(static_cast<size_t>(row * kHeight), 99);
  for (int64_t c = 0; c < 3; ++c) {
    for (int64_t y = 0; y < kHeight; ++y) {
      for (int64_t x = 0; x < kWidth; ++x) {
        const uint8_t value = planar[static_cast<size_t>((c * kHeight + y) * kWidth + x)];
        rgb[static_cast<size_t>((y * kWidth + x) * 3 + c)] = value;
        bgra[static_cast<size_t>((kHeight - 1 - y) * row + x * 4 + 2 - c)] = value;
      }
    }
  }
  EXPECT_EQ(logits_of(resnet_image_hwc(rgb.data(), kHeight, kWidth, 3)), logits);
  resnet_image image = resnet_image_hwc(bgra.data() + (kHeight - 1) * row + 2, kHeight, kWidth, 3);
  image.row_stride = -row;
  image.column_stride = 4;
  image.channel_stride = -1;
  EXPECT_EQ(logits_of(image), logits);
}

TEST_F(Library, FilesAndTheirBytesGiveTheSameAsTheirPixels) {
  for (const char* name : {"rocket.jpg", "cat.png"}) {
    const Image decoded = read_image(photo(name));
    const std::vector<float> logits =
        logits_of(resnet_image_chw(decoded.pixels.data(), 3, decoded.height, decoded.width));
    EXPECT_EQ(logits_of(resnet_image_file(photo(name).c_str())), logits);
    const std::string bytes = content_of(photo(name));
    EXPECT_EQ(logits_of(resnet_image_encoded(bytes.data(), bytes.size())), logits);
  }
}

TEST_F(Library, PredictionsAreTheBestLogitsOfEachImageInOrder) {
  const std::string rocket = photo("rocket.jpg"), cat = photo("cat.png");
  std::vector<resnet_image> images;
  for (int i = 0; i < 40; ++i) images.push_back(resnet_image_file(i % 3 ? rocket.c_str() : cat.c_str()));
  std::vector<float> logits(images.size() * 5);
  std::vector<resnet_prediction> best(images.size() * 2);
  ASSERT_EQ(resnet_logits(classifier_, images.data(), images.size(), logits.data()), RESNET_OK);
  ASSERT_EQ(resnet_classify(classifier_, images.data(), images.size(), 2, best.data()), RESNET_OK);
  for (size_t i = 0; i < images.size(); ++i) {
    const auto row = std::span(logits).subspan(i * 5, 5);
    const auto expected = Classifier::top_k(row, 2, {"ant", "bee", "cat", "dog", "elk"});
    for (size_t j = 0; j < 2; ++j) {
      EXPECT_EQ(best[i * 2 + j].index, static_cast<size_t>(expected[j].index));
      EXPECT_EQ(best[i * 2 + j].probability, expected[j].probability);
      EXPECT_EQ(best[i * 2 + j].name, expected[j].name);
    }
  }
}

TEST_F(Library, FailuresAreCodesWithALineAndChangeNothing) {
  resnet_classifier* other = classifier_;
  expect_failure(resnet_open((folder_ / "no\nfile").c_str(), nullptr, &other), RESNET_IO, "no\\x0afile");
  EXPECT_EQ(other, nullptr);
  put(folder_ / "bad", "not a model at all");
  expect_failure(resnet_open((folder_ / "bad").c_str(), nullptr, &other), RESNET_BAD_DATA, "bad");
  expect_failure(resnet_open(nullptr, nullptr, &other), RESNET_USAGE, "model_path is null");
  expect_failure(resnet_open(path_.c_str(), nullptr, nullptr), RESNET_USAGE, "classifier is null");
  resnet_options options = resnet_default_options();
  options.threads = 5000;
  expect_failure(resnet_open(path_.c_str(), &options, &other), RESNET_USAGE, "threads: 5000");
  options = {};
  expect_failure(resnet_open(path_.c_str(), &options, &other), RESNET_USAGE, "resnet_default_options");

  const std::vector<uint8_t> pixels = random_pixels(1, kHeight, kWidth);
  const resnet_image good = resnet_image_hwc(pixels.data(), kHeight, kWidth, 3);
  float logits[10] = {7};
  resnet_prediction best[5];
  expect_failure(resnet_logits(nullptr, &good, 1, logits), RESNET_USAGE, "classifier is null");
  expect_failure(resnet_logits(classifier_, nullptr, 1, logits), RESNET_USAGE, "images is null");
  expect_failure(resnet_logits(classifier_, &good, 1, nullptr), RESNET_USAGE, "logits is null");
  expect_failure(resnet_classify(classifier_, &good, 1, 0, best), RESNET_USAGE, "k is 0; expected 1 to 5");
  expect_failure(resnet_classify(classifier_, &good, 1, 6, best), RESNET_USAGE, "k is 6");
  expect_failure(resnet_classify(classifier_, &good, 1, 5, nullptr), RESNET_USAGE, "predictions is null");
  EXPECT_EQ(resnet_logits(classifier_, nullptr, 0, nullptr), RESNET_OK) << "of no images";

  const auto second = [&](resnet_image image, resnet_status status, const std::string& part) {
    const resnet_image images[] = {good, image};
    expect_failure(resnet_logits(classifier_, images, 2, logits), status, part);
  };
  second(resnet_image_file("none.jpg"), RESNET_IO, "none.jpg");
  second(resnet_image_file(path_.c_str()), RESNET_BAD_DATA, "model.safetensors");
  second(resnet_image_file(nullptr), RESNET_USAGE, "image 1: path is null");
  second(resnet_image_encoded("GIF89a", 6), RESNET_BAD_DATA, "image 1");
  second(resnet_image_encoded(nullptr, 6), RESNET_USAGE, "encoded is null");
  second(resnet_image_hwc(nullptr, 5, 5, 3), RESNET_USAGE, "pixels is null");
  second(resnet_image_hwc(pixels.data(), 5, 5, 1), RESNET_USAGE, "image 1: 1 channels; the model wants 3");
  second(resnet_image_hwc(pixels.data(), 0, 5, 3), RESNET_USAGE, "5x0 pixels");
  second(resnet_image_hwc(pixels.data(), 5, 65536, 3), RESNET_USAGE, "65536x5 pixels");
  resnet_image unknown = good;
  unknown.kind = static_cast<resnet_image_kind>(0);
  second(unknown, RESNET_USAGE, "kind 0");
  EXPECT_EQ(logits[0], 7) << "nothing was written";
}

TEST_F(Library, AModelOfTwoChannelsTakesPixelsOnly) {
  const std::string path = folder_ / "two.safetensors";
  write_safetensors(path, small_model(1, 20, DType::f32, 2));
  resnet_classifier* two = nullptr;
  ASSERT_EQ(resnet_open(path.c_str(), nullptr, &two), RESNET_OK) << resnet_last_error();
  const std::string file = photo("cat.png");
  const resnet_image encoded = resnet_image_file(file.c_str());
  float logits[5];
  expect_failure(resnet_logits(two, &encoded, 1, logits), RESNET_USAGE, "image 0: the model wants 2 channels");
  const std::vector<uint8_t> pixels = random_pixels(1, kHeight, kWidth, 2);
  const resnet_image image = resnet_image_chw(pixels.data(), 2, kHeight, kWidth);
  EXPECT_EQ(resnet_logits(two, &image, 1, logits), RESNET_OK) << resnet_last_error();
  resnet_close(two);
}

TEST_F(Library, EachThreadHasItsOwnLastError) {
  expect_failure(resnet_open(nullptr, nullptr, nullptr), RESNET_USAGE, "model_path");
  std::thread([&] {
    EXPECT_STREQ(resnet_last_error(), "");
    resnet_classify(nullptr, nullptr, 0, 1, nullptr);
    EXPECT_NE(std::string(resnet_last_error()).find("resnet_classify"), std::string::npos);
  }).join();
  EXPECT_NE(std::string(resnet_last_error()).find("model_path"), std::string::npos);
}

}  // namespace
}  // namespace resnet

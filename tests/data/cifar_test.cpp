#include "data/cifar.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "data/idx_bytes.h"

namespace resnet {
namespace {

using namespace testing_data;

constexpr size_t kPixels = 3072;

void expect_error(const std::string& path, CifarKind kind, const std::vector<std::string>& parts) {
  CifarBatch batch;
  try {
    read_cifar_file(path, kind, batch);
    ADD_FAILURE() << path << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(Cifar, reads_ten_classes_with_the_names_beside_them) {
  const TempFolder folder;
  for (uint8_t k = 1; k <= 5; ++k) {
    folder.write("data_batch_" + std::to_string(k) + ".bin", Bytes{k} + ramp(kPixels) + Bytes{0} + Bytes(kPixels, k));
  }
  folder.write("test_batch.bin", Bytes{9} + ramp(kPixels));
  folder.write("batches.meta.txt", [] {
    Bytes names;
    for (const char* name :
         {"airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"}) {
      for (const char* c = name; *c; ++c) names.push_back(static_cast<uint8_t>(*c));
      names.push_back('\n');
    }
    names.push_back('\n');
    return names;
  }());
  const Dataset train = load_dataset(folder.path(), Split::train);
  EXPECT_EQ(train.count, 10);
  EXPECT_EQ(train.channels, 3);
  EXPECT_EQ(train.labels, (std::vector<int32_t>{1, 0, 2, 0, 3, 0, 4, 0, 5, 0}));
  EXPECT_EQ(train.class_names[9], "truck");
  const ImageView image = train.image(0);
  EXPECT_EQ(Bytes(image.pixels.begin(), image.pixels.end()), ramp(kPixels));
  EXPECT_EQ(load_dataset(folder.path(), Split::test).labels, (std::vector<int32_t>{9}));
  Image scratch;
  const Dataset grey = load_dataset(folder.path(), Split::train, {.channels = 1});
  const ImageView converted = grey.image(1, scratch);
  EXPECT_EQ(converted.channels, 1);
  EXPECT_EQ(Bytes(converted.pixels.begin(), converted.pixels.end()), Bytes(1024, 1));  // red = green = blue = 1
  std::filesystem::remove(folder / "data_batch_3.bin");
  EXPECT_THROW(load_dataset(folder.path(), Split::train), ResourceError);
}

TEST(Cifar, refuses_names_that_no_model_file_can_keep) {
  const TempFolder folder;
  folder.write("test_batch.bin", Bytes{9} + ramp(kPixels));
  folder.write("batches.meta.txt", {'a', '\n', 0xff, '\n', 'c', '\n', 'd', '\n', 'e', '\n',
                                    'f', '\n', 'g',  '\n', 'h', '\n', 'i', '\n', 'j', '\n'});
  try {
    load_dataset(folder.path(), Split::test);
    ADD_FAILURE() << "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(error.what()).find("found name 2 not to be UTF-8"), std::string::npos) << error.what();
  }
}

TEST(Cifar, reads_the_fine_label_of_a_hundred_classes) {
  const TempFolder folder;
  folder.write("train.bin", Bytes{19, 99} + ramp(kPixels) + Bytes{0, 7} + ramp(kPixels));
  const Dataset train = load_dataset(folder.path(), Split::train);
  EXPECT_EQ(train.labels, (std::vector<int32_t>{99, 7}));
  EXPECT_EQ(train.classes(), 100);
  EXPECT_EQ(train.class_names[42], "42");
}

TEST(Cifar, rejects_damage_with_its_byte) {
  const TempFolder folder;
  const std::string path = folder / "x.bin";
  folder.write("x.bin", {});
  expect_error(path, CifarKind::cifar10, {"byte 0 (record): found 0 bytes"});
  folder.write("x.bin", Bytes{1} + ramp(kPixels) + Bytes{1});
  expect_error(path, CifarKind::cifar10, {"byte 3073 (record): found 3074 bytes", "records of 3073"});
  folder.write("x.bin", Bytes{1} + ramp(kPixels) + Bytes{10} + ramp(kPixels));
  expect_error(path, CifarKind::cifar10, {"byte 3073 (label): found class 10 for image 1; expected 0 to 9"});
  folder.write("x.bin", Bytes{20, 1} + ramp(kPixels));
  expect_error(path, CifarKind::cifar100, {"byte 0 (coarse label)"});
  folder.write("x.bin", Bytes{2, 100} + ramp(kPixels));
  expect_error(path, CifarKind::cifar100, {"byte 1 (label)"});
}

}  // namespace
}  // namespace resnet

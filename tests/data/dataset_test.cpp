#include "data/dataset.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "base/error.h"
#include "data/idx_bytes.h"

namespace resnet {
namespace {

using namespace testing_data;

void expect_error(const std::string& data, Split split, ExitCode code, const std::vector<std::string>& parts) {
  try {
    load_dataset(data, split);
    ADD_FAILURE() << data << " was accepted";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks: " << part;
  }
}

TEST(Dataset, holds_the_real_fashion_mnist) {
  const Dataset train = load_dataset("fashion-mnist", Split::train);
  const Dataset test = load_dataset("fashion-mnist", Split::test);
  EXPECT_EQ(train.name, "fashion-mnist");
  EXPECT_EQ(train.split, Split::train);
  EXPECT_EQ(train.count, 60000);
  EXPECT_EQ(test.count, 10000);
  EXPECT_EQ(test.split, Split::test);
  // Read from the files with numpy.
  const auto sum = [](const Dataset& data) {
    return std::accumulate(data.pixels.begin(), data.pixels.end(), int64_t{0});
  };
  EXPECT_EQ(sum(train), 3431114169);
  EXPECT_EQ(sum(test), 573469082);
  const std::vector<int32_t> first = {9, 0, 0, 3, 0, 2, 7, 2, 5, 5};
  EXPECT_TRUE(std::equal(first.begin(), first.end(), train.labels.begin()));
  const std::vector<uint8_t> row_14 = {0,   0,   1,   4,   6,   7,   2,   0,   0,   0,   0,   0,   237, 226,
                                       217, 223, 222, 219, 222, 221, 216, 223, 229, 215, 218, 255, 77,  0};
  const ImageView image = train.image(0);
  EXPECT_TRUE(std::equal(row_14.begin(), row_14.end(), image.pixels.begin() + 14 * 28));
  for (const Dataset* data : {&train, &test}) {
    EXPECT_EQ(data->channels, 1);
    EXPECT_EQ(data->height, 28);
    EXPECT_EQ(data->width, 28);
    for (int32_t label = 0; label < 10; ++label) {
      EXPECT_EQ(std::count(data->labels.begin(), data->labels.end(), label), data->count / 10) << label;
    }
    const std::vector<std::string> names = {"t-shirt/top", "trouser", "pullover", "dress", "coat",
                                            "sandal",      "shirt",   "sneaker",  "bag",   "ankle boot"};
    EXPECT_EQ(data->class_names, names);
  }
  EXPECT_NE(train.fingerprint(), test.fingerprint());

  const Dataset by_path = load_dataset(kFashionMnistFolder, Split::test);
  EXPECT_EQ(by_path.name, kFashionMnistFolder);
  EXPECT_EQ(by_path.class_names, test.class_names);
  EXPECT_EQ(by_path.fingerprint(), test.fingerprint());
}

TEST(Dataset, reads_a_folder_of_plain_and_gzip_files_with_the_classes_of_the_training_labels) {
  const TempFolder folder;
  write_mnist_files(folder, {0, 3, 1}, {1, 1});
  const Dataset train = load_dataset(folder.path(), Split::train);
  const Dataset test = load_dataset(folder.path(), Split::test);
  EXPECT_EQ(train.count, 3);
  EXPECT_EQ(test.count, 2);
  EXPECT_EQ(train.labels, (std::vector<int32_t>{0, 3, 1}));
  EXPECT_EQ(test.labels, (std::vector<int32_t>{1, 1}));
  const std::vector<std::string> names = {"0", "1", "2", "3"};
  EXPECT_EQ(train.class_names, names);
  EXPECT_EQ(test.class_names, names);
  EXPECT_EQ(train.pixels, ramp(3 * 25));
  const ImageView last = train.image(2);
  EXPECT_TRUE(std::equal(last.pixels.begin(), last.pixels.end(), train.pixels.begin() + 50));
}

TEST(Dataset, takes_the_classes_of_the_test_labels_where_there_are_no_training_labels) {
  const TempFolder folder;
  folder.write("t10k-images-idx3-ubyte", image_file(2, 3, 3));
  folder.write("t10k-labels-idx1-ubyte", label_file({4, 0}));
  EXPECT_EQ(load_dataset(folder.path(), Split::test).classes(), 5);
}

TEST(Dataset, rejects_a_label_that_is_no_training_class) {
  const TempFolder folder;
  write_mnist_files(folder, {0, 3, 1}, {1, 4});
  expect_error(folder.path(), Split::test, ExitCode::bad_data,
               {"t10k-labels-idx1-ubyte.gz: byte 9 (label)", "found class 4 for image 1", "expected 0 to 3"});
}

TEST(Dataset, rejects_counts_that_differ_before_reading_the_pixels) {
  const TempFolder folder;
  write_mnist_files(folder, {0, 1}, {0, 1});
  folder.write("train-labels-idx1-ubyte", label_file({0, 1, 1}));
  // The pixels are damaged too, which would be found only later.
  const Bytes packed = gzip(image_file(2, 5, 5));
  folder.write("train-images-idx3-ubyte", cut(packed, packed.size() - 4));
  expect_error(folder.path(), Split::train, ExitCode::bad_data,
               {"train-labels-idx1-ubyte: byte 4 (count)", "found 3 labels; expected 2", "train-images-idx3-ubyte"});
}

TEST(Dataset, rejects_images_that_no_network_could_take) {
  const TempFolder folder;
  folder.write("train-images-idx3-ubyte", image_file(1, 1, 65536));
  folder.write("train-labels-idx1-ubyte", label_file({0}));
  expect_error(folder.path(), Split::train, ExitCode::limit, {"1 x 65536 pixels", "at most 65535"});
}

TEST(Dataset, names_the_file_that_a_folder_lacks) {
  const TempFolder folder;
  expect_error(folder.path(), Split::train, ExitCode::io,
               {folder.path(), "holds no data set", "train-images-idx3-ubyte", "CIFAR", "train/CLASS"});
  write_mnist_files(folder, {0}, {0});
  std::remove((folder / "t10k-labels-idx1-ubyte.gz").c_str());
  expect_error(folder.path(), Split::test, ExitCode::io,
               {folder.path(), "neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte.gz"});
}

TEST(Dataset, prefers_the_plain_file_to_its_gz) {
  const TempFolder folder;
  write_mnist_files(folder, {0, 1}, {0, 1});
  folder.write("train-images-idx3-ubyte.gz", {1, 2, 3});
  EXPECT_EQ(load_dataset(folder.path(), Split::train).count, 2);
}

TEST(Dataset, answers_an_unknown_name_with_the_known_ones_and_the_accepted_forms) {
  expect_error("fashion-mnits", Split::train, ExitCode::usage,
               {"data 'fashion-mnits'", "nearest name: fashion-mnist", "train-images-idx3-ubyte"});
  expect_error("no\x1bsuch", Split::train, ExitCode::usage, {"data 'no\\x1bsuch'"});
  expect_error("", Split::train, ExitCode::usage, {"data ''"});
  expect_error("./no/such/folder", Split::train, ExitCode::io, {"./no/such/folder", "No such file"});
  expect_error(std::string(5000, 'x'), Split::train, ExitCode::io, {"File name too long"});
  expect_error("/dev/null", Split::train, ExitCode::io, {"/dev/null: is neither a folder nor a file", "fashion-mnist"});
}

TEST(Dataset, has_a_fingerprint_that_changes_with_every_part) {
  const TempFolder folder;
  write_mnist_files(folder, {0, 3, 1}, {1, 1});
  const Dataset data = load_dataset(folder.path(), Split::train);
  const uint64_t fingerprint = data.fingerprint();
  EXPECT_EQ(load_dataset(folder.path(), Split::train).fingerprint(), fingerprint);
  Dataset other = data;
  other.pixels.back() ^= 1;
  EXPECT_NE(other.fingerprint(), fingerprint);
  other = data;
  other.labels[2] = 2;
  EXPECT_NE(other.fingerprint(), fingerprint);
  other = data;
  other.class_names.emplace_back("4");
  EXPECT_NE(other.fingerprint(), fingerprint);
  other = data;
  other.height = 1;
  other.width = 25;
  EXPECT_NE(other.fingerprint(), fingerprint);
}

TEST(Dataset, has_the_same_fingerprint_on_every_machine) {
  Dataset data;
  data.count = 2;
  data.height = 1;
  data.width = 2;
  data.pixels = {1, 2, 3, 4};
  data.labels = {1, 0};
  data.class_names = {"a", "b"};
  // hashlib.sha256(struct.pack("<5q", 2, 1, 1, 2, 2) + bytes([1, 2, 3, 4]) + struct.pack("<2q", 1, 0)).hexdigest()[:16]
  EXPECT_EQ(data.fingerprint(), 0xa8d1625b0bb7146fu);
}

TEST(Dataset, refuses_an_image_outside_its_pixels) {
  Dataset data;
  data.count = 3;
  data.height = data.width = 2;
  data.pixels.resize(8);
  EXPECT_EQ(data.image(1).pixels.size(), 4u);
  EXPECT_THROW(data.image(2), InternalError);
  EXPECT_THROW(data.image(-1), InternalError);
}

}  // namespace
}  // namespace resnet

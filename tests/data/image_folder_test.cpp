#include "data/image_folder.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "data/dataset.h"
#include "data/png_bytes.h"

namespace resnet {
namespace {

using namespace testing_data;

void expect_error(const std::string& data, Split split, ExitCode code, const std::vector<std::string>& parts) {
  try {
    load_dataset(data, split);
    ADD_FAILURE() << data << " was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    for (const std::string& part : parts)
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

/// Two classes, cat and dog, in train and val; a pixel's value tells which file it is.
void write_pets(const TempFolder& folder) {
  write_below(folder, "train/dog/a.png", grey_png(4, 3, 1));
  write_below(folder, "train/cat/b.png", grey_png(5, 3, 2));
  write_below(folder, "train/cat/a.png", grey_png(4, 7, 3));
  write_below(folder, "val/cat/a.png", grey_png(4, 4, 4));
  write_below(folder, "val/dog/a.png", grey_png(4, 4, 5));
}

TEST(ImageFolder, numbers_classes_by_their_bytes_and_lists_images_as_torchvision) {
  const TempFolder folder;
  for (const char* name : {"Zebra", "ant", "\xc3\xa4rger", "10", "2"}) {
    write_below(folder, std::string("train/") + name + "/x.png", grey_png(2, 2, 1));
  }
  // torchvision sorts the paths of folders, "2/b" before "2/b-c" before "2/b/deep", and names within each.
  write_below(folder, "train/2/b/1.png", grey_png(2, 2, 1));
  write_below(folder, "train/2/b-c/1.png", grey_png(2, 2, 1));
  write_below(folder, "train/2/b/deep/1.png", grey_png(2, 2, 1));
  write_below(folder, "train/2/a.png", grey_png(2, 2, 1));
  const Dataset data = load_dataset(folder.path(), Split::train);
  EXPECT_EQ(data.class_names, (std::vector<std::string>{"10", "2", "Zebra", "ant", "\xc3\xa4rger"}));
  const std::vector<std::string> files = {"10/x.png",    "2/a.png",     "2/x.png",
                                          "2/b/1.png",   "2/b-c/1.png", "2/b/deep/1.png",
                                          "Zebra/x.png", "ant/x.png",   "\xc3\xa4rger/x.png"};
  EXPECT_EQ(data.files, files);
  EXPECT_EQ(data.labels, (std::vector<int32_t>{0, 1, 1, 1, 1, 1, 2, 3, 4}));
}

TEST(ImageFolder, refuses_a_class_whose_name_no_model_file_can_keep) {
  for (const char* name : {"caf\xe9", "\xff", "a\xc3", "\xed\xa0\x80"}) {
    const TempFolder folder;
    write_pets(folder);
    write_below(folder, std::string("train/") + name + "/x.png", grey_png(2, 2, 1));
    expect_error(folder.path(), Split::train, ExitCode::bad_data,
                 {"train/" + std::string(name), "(class)", "not UTF-8"});
  }
}

TEST(ImageFolder, refuses_a_mixture_of_the_models_classes_and_others) {
  const TempFolder folder;
  write_pets(folder);
  const auto classes_by = [&](std::vector<std::string> names) {
    return load_dataset(folder.path(), Split::train, {.class_names = std::move(names)}).class_names;
  };
  EXPECT_EQ(classes_by({"dog", "cow", "cat"}), (std::vector<std::string>{"dog", "cow", "cat"}));
  EXPECT_EQ(classes_by({"a", "b"}), (std::vector<std::string>{"cat", "dog"})) << "none known: its own";
  try {
    classes_by({"cat", "dogs"});
    ADD_FAILURE() << "accepted";
  } catch (const UserError& error) {
    EXPECT_EQ(error.code(), ExitCode::refused);
    EXPECT_NE(std::string(error.what()).find("has the class 'dog'"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("nearest: dogs"), std::string::npos) << error.what();
  }
}

TEST(ImageFolder, decodes_an_image_when_it_is_asked_for) {
  const TempFolder folder;
  write_pets(folder);
  const Dataset data = load_dataset(folder.path(), Split::train);
  EXPECT_EQ(data.count, 3);
  EXPECT_EQ(data.channels, 3);
  Image scratch;
  const ImageView image = data.image(0, scratch);  // cat/a.png
  EXPECT_EQ(image.height, 7);
  EXPECT_EQ(image.width, 4);
  EXPECT_EQ(Bytes(image.pixels.begin(), image.pixels.end()), Bytes(3 * 28, 3));
  const Dataset grey = load_dataset(folder.path(), Split::train, {.channels = 1});
  EXPECT_EQ(grey.image(2, scratch).pixels.size(), 12u);
}

TEST(ImageFolder, trusts_content_and_not_endings_and_leaves_hidden_and_other_files_out) {
  const TempFolder folder;
  write_below(folder, "train/a/photo", grey_png(2, 2, 1));
  write_below(folder, "train/a/photo.JPG", grey_png(2, 2, 1));
  write_below(folder, "train/a/.hidden.png", grey_png(2, 2, 1));
  write_below(folder, "train/a/.git/x.png", grey_png(2, 2, 1));
  write_below(folder, "train/a/notes.txt", text_bytes("hello"));
  write_below(folder, "train/.cache/x.png", grey_png(2, 2, 1));
  write_below(folder, "train/stray.png", grey_png(2, 2, 1));
  const FolderScan scan = scan_image_folder(folder / "train");
  EXPECT_EQ(scan.class_names, (std::vector<std::string>{"a"}));
  EXPECT_EQ(scan.files, (std::vector<std::string>{"a/photo", "a/photo.JPG"}));
  EXPECT_EQ(scan.ignored, (std::vector<std::string>{"a/notes.txt"}));
}

TEST(ImageFolder, follows_links_and_ends_a_loop) {
  const TempFolder folder;
  write_below(folder, "elsewhere/x.png", grey_png(2, 2, 1));
  write_below(folder, "train/a/y.png", grey_png(2, 2, 1));
  std::filesystem::create_directory_symlink(folder / "elsewhere", folder / "train/a/linked");
  std::filesystem::create_directory_symlink("..", folder / "train/a/loop");
  std::filesystem::create_directory_symlink(".", folder / "train/a/self");
  const FolderScan scan = scan_image_folder(folder / "train");
  ASSERT_GE(scan.files.size(), 2u);
  EXPECT_LT(scan.files.size(), 8u);
  EXPECT_EQ(scan.files[0], "a/y.png");
  EXPECT_NE(std::find(scan.files.begin(), scan.files.end(), "a/linked/x.png"), scan.files.end());
}

TEST(ImageFolder, takes_validation_and_test_for_each_other_where_one_is_missing) {
  const TempFolder folder;
  write_pets(folder);
  EXPECT_EQ(load_dataset(folder.path(), Split::validation).root, folder / "val/");
  EXPECT_EQ(load_dataset(folder.path(), Split::test).root, folder / "val/");
  EXPECT_EQ(load_dataset(folder.path(), Split::test).split, Split::validation) << "what stands in says so";
  write_below(folder, "test/cat/a.png", grey_png(4, 4, 9));
  EXPECT_EQ(load_dataset(folder.path(), Split::test).split, Split::test);
  EXPECT_EQ(load_dataset(folder.path(), Split::train).split, Split::train);
  EXPECT_EQ(load_dataset(folder.path(), Split::validation).root, folder / "val/");
  EXPECT_EQ(load_dataset(folder.path(), Split::test).root, folder / "test/");
}

TEST(ImageFolder, numbers_an_evaluation_split_by_the_training_classes) {
  const TempFolder folder;
  write_pets(folder);
  std::filesystem::remove_all(folder / "val/cat");
  const Dataset data = load_dataset(folder.path(), Split::test);
  EXPECT_EQ(data.class_names, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(data.labels, (std::vector<int32_t>{1}));
  write_below(folder, "val/bird/a.png", grey_png(4, 4, 9));
  expect_error(folder.path(), Split::test, ExitCode::bad_data, {"val/bird", "a class that", "lacks"});
}

TEST(ImageFolder, is_numbered_by_a_models_classes_where_they_are_known) {
  const TempFolder folder;
  write_below(folder, "dog/a.png", grey_png(4, 4, 9));
  const Dataset data = load_dataset(folder.path(), Split::test, {.class_names = {"ant", "bee", "dog"}});
  EXPECT_EQ(data.labels, (std::vector<int32_t>{2}));
  EXPECT_EQ(data.classes(), 3);
  EXPECT_EQ(load_dataset(folder.path(), Split::test, {.class_names = {"ant"}}).classes(), 1);
}

TEST(ImageFolder, names_what_is_missing) {
  const TempFolder folder;
  write_below(folder, "train/a/x.png", grey_png(2, 2, 1));
  expect_error(folder.path(), Split::test, ExitCode::io, {"has no folder of test images", "expected val"});
  std::filesystem::create_directories(folder / "train/empty");
  expect_error(folder.path(), Split::train, ExitCode::bad_data, {"train/empty", "found no image in it"});
  const TempFolder nothing;
  std::filesystem::create_directories(nothing / "train");
  expect_error(nothing.path(), Split::train, ExitCode::bad_data, {"train: byte 0 (classes)", "one for each class"});
}

TEST(ImageFolder, has_a_fingerprint_that_notices_files_that_change) {
  const TempFolder folder;
  write_pets(folder);
  const auto fingerprint = [&] { return load_dataset(folder.path(), Split::train).fingerprint(); };
  const uint64_t before = fingerprint();
  EXPECT_EQ(fingerprint(), before);
  write_below(folder, "train/dog/a.png", grey_png(4, 3, 7));  // the same size, other pixels
  EXPECT_NE(fingerprint(), before);
  write_below(folder, "train/dog/a.png", grey_png(4, 3, 1));
  EXPECT_EQ(fingerprint(), before);
  std::filesystem::rename(folder / "train/dog/a.png", folder / "train/dog/b.png");
  EXPECT_NE(fingerprint(), before);
}

}  // namespace
}  // namespace resnet

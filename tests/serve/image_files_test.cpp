#include "serve/image_files.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "data/decode.h"
#include "formats/temporary_directory.h"
#include "serve/image_paths.h"

namespace resnet {
namespace {

const std::string kCat = RESNET_SOURCE_DIR "/tests/data/photos/cat.png";
const std::string kRocket = RESNET_SOURCE_DIR "/tests/data/photos/rocket.jpg";

ImageFilesOptions small(int64_t batch_size, int threads = 1, bool ahead = false) {
  return {.batch_size = batch_size,
          .preprocessing = {.image_size = 9, .resize = ResizeRule::shortest, .resize_size = 11},
          .threads = threads,
          .ahead = ahead};
}

std::vector<float> input_of(const std::string& path, const ImageFilesOptions& options) {
  PreprocessScratch scratch;
  std::vector<float> values(3 * 81);
  preprocess(read_image(path).view(), options.preprocessing, scratch, values);
  return values;
}

std::string written(const TemporaryDirectory& folder, const std::string& name, const std::string& content) {
  const std::string path = folder / name;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

TEST(ImageFiles, batches_hold_the_usable_files_in_order_whatever_the_threads) {
  const TemporaryDirectory folder(memory_directory());
  const std::string bad = written(folder, "bad.png", "no image");
  std::vector<std::string> paths;
  for (int i = 0; i < 21; ++i) paths.push_back(i % 5 == 3 ? bad : i == 7 ? folder / "gone" : i % 2 ? kCat : kRocket);
  for (const int threads : {1, 4}) {
    for (const bool ahead : {false, true}) {
      for (const int64_t batch_size : {1, 5, 100}) {
        const ImageFilesOptions options = small(batch_size, threads, ahead);
        const std::vector<float> cat = input_of(kCat, options), rocket = input_of(kRocket, options);
        ASSERT_NE(cat, rocket);
        ImageFiles files(paths, options);
        size_t at = 0;
        while (const FileBatch* batch = files.next()) {
          ASSERT_EQ(batch->first, at);
          size_t row = 0;
          for (const auto& failure : batch->failures) {
            const std::string& path = paths[at++];
            ASSERT_EQ(failure.has_value(), path != kCat && path != kRocket) << at;
            if (failure) {
              EXPECT_EQ(failure->code, path == bad ? ExitCode::bad_data : ExitCode::io);
              EXPECT_NE(failure->message.find(path), std::string::npos) << failure->message;
              continue;
            }
            const auto values = batch->inputs.as<float>().subspan(row++ * cat.size(), cat.size());
            const std::vector<float>& expected = path == kCat ? cat : rocket;
            ASSERT_TRUE(std::equal(values.begin(), values.end(), expected.begin())) << at;
          }
          ASSERT_EQ(batch->inputs.shape(), (Shape{static_cast<int64_t>(row), 3, 9, 9}));
        }
        EXPECT_EQ(at, paths.size());
        EXPECT_EQ(files.next(), nullptr);
      }
    }
  }
}

TEST(ImageFiles, ends_at_any_moment_and_without_files) {
  EXPECT_EQ(ImageFiles({}, small(3)).next(), nullptr);
  for (int calls = 0; calls < 3; ++calls) {
    ImageFiles files(std::vector<std::string>(50, kCat), small(4, 3, true));
    for (int i = 0; i < calls; ++i) ASSERT_NE(files.next(), nullptr);
  }
}

TEST(ImageFiles, refuses_options_out_of_range) {
  const auto refuses = [](auto change) {
    ImageFilesOptions options = small(2);
    change(options);
    EXPECT_THROW(ImageFiles({kCat}, options), UserError);
  };
  refuses([](ImageFilesOptions& o) { o.batch_size = 0; });
  refuses([](ImageFilesOptions& o) { o.threads = 0; });
  refuses([](ImageFilesOptions& o) { o.channels = 2; });
  refuses([](ImageFilesOptions& o) { o.preprocessing.mean = {1, 2}; });
}

TEST(ImagePaths, are_files_folders_and_patterns) {
  const TemporaryDirectory folder(memory_directory());
  const std::string jpeg_start = "\xff\xd8\xff";
  const std::vector<std::string> images = {written(folder, "B.JPG", ""), written(folder, "a/x.webp", ""),
                                           written(folder, "a.png", ""), written(folder, "named not", jpeg_start)};
  written(folder, "a/readme.md", "text");
  written(folder, "empty/readme.md", "");
  written(folder, ".thumbnails/t.png", "");
  written(folder, "a/.hidden.png", "");
  std::filesystem::create_symlink(folder / "gone", folder / "link");
  std::vector<std::string> sorted = images;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_EQ(image_paths(folder / ""), (std::vector<std::string>{sorted})) << "by the bytes of the whole path";
  EXPECT_EQ(image_paths(folder / "a/readme.md"), std::vector<std::string>{folder / "a/readme.md"}) << "a file is taken";
  EXPECT_EQ(image_paths(folder / "a*"), (std::vector<std::string>{images[1], images[2]})) << "a folder is looked into";
  EXPECT_EQ(image_paths(folder / "gone.png"), std::vector<std::string>{folder / "gone.png"});
  const std::string odd = written(folder, "[1].png", "");
  EXPECT_EQ(image_paths(odd), std::vector<std::string>{odd}) << "a file of that name is no pattern";
  for (const char* none : {"empty", "*.tiff", "emp*"}) {
    try {
      image_paths(folder / none);
      ADD_FAILURE() << none;
    } catch (const ResourceError& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      EXPECT_NE(std::string(error.what()).find(none == std::string("emp*") ? "empty" : none), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace resnet

#include "serve/golden.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "formats/temporary_directory.h"

namespace resnet {
namespace {

TEST(Golden, OneThatWouldBeTooLargeToReadIsNotWritten) {
  TemporaryDirectory folder;
  Golden golden;
  golden.architecture = "net";
  golden.images.push_back({.file = "a.png", .logits = std::vector<float>(1000, 0.1f)});
  const std::string path = folder / "golden.json";
  write_golden(path, golden);
  const auto bytes = std::filesystem::file_size(path);
  golden.images[0].logits.resize((size_t{33} << 20) * 1000 / bytes, 0.1f);
  try {
    write_golden(folder / "large.json", golden);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.code(), ExitCode::limit);
    EXPECT_NE(std::string(error.what()).find("large.json: 1 images make "), std::string::npos) << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "large.json"));
}

}  // namespace
}  // namespace resnet

// Decodes the images named on stdin, one a line, for a test in Python:  decode_helper CHANNELS EXIF_ORIENTATION(0|1)
// Writes for each "ok CHANNELS HEIGHT WIDTH MODE ORIENTATION DAMAGES" and a line feed, then the pixels; or "error CODE
// MESSAGE" and a line feed.

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "base/error.h"
#include "data/decode.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  std::vector<std::string> damage;
  const resnet::DecodeOptions options{
      .channels = std::atoi(argv[1]), .exif_orientation = std::atoi(argv[2]) != 0, .damage = &damage};
  for (std::string path; std::getline(std::cin, path);) {
    damage.clear();
    try {
      std::ifstream stream(path, std::ios::binary);
      const std::string content{std::istreambuf_iterator<char>(stream), {}};
      const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(content.data()), content.size());
      const resnet::Image image = resnet::decode_image(bytes, path, options);
      const resnet::ImageInfo info = resnet::probe_image(bytes, path);
      std::printf("ok %d %d %d %s %d %d\n", static_cast<int>(image.channels), static_cast<int>(image.height),
                  static_cast<int>(image.width), info.mode.c_str(), info.orientation, static_cast<int>(damage.size()));
      std::fwrite(image.pixels.data(), 1, image.pixels.size(), stdout);
    } catch (const resnet::Error& error) {
      std::printf("error %d %s\n", static_cast<int>(error.code()), error.what());
    }
  }
  return 0;
}

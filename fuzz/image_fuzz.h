#pragma once
// What the fuzzers of image files share.

#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "data/decode.h"

/// Decodes bytes as a file of one format, grey or RGB and turned or not by the first byte. Only the file can be at
/// fault here; a bug of ours ends the run.
inline int fuzz_image(resnet::ImageFormat format, const uint8_t* bytes, size_t size) {
  if (size == 0) return 0;
  const std::span<const std::byte> file(reinterpret_cast<const std::byte*>(bytes) + 1, size - 1);
  resnet::DecodeOptions options{.channels = bytes[0] % 2 == 0 ? 1 : 3, .exif_orientation = bytes[0] % 4 >= 2};
  options.max_pixels = 1 << 18;
  std::vector<std::string> damage;
  options.damage = &damage;
  try {
    const resnet::ImageInfo info = resnet::probe_image(file, "input");
    if (info.format != format) return 0;
    const resnet::Image image = resnet::decode_image(file, "input", options);
    const bool turned = options.exif_orientation && info.orientation >= 5;
    const auto pixels = static_cast<size_t>(image.channels * image.height * image.width);
    if (image.channels != options.channels || image.pixels.size() != pixels || pixels == 0) std::abort();
    if (image.width != (turned ? info.height : info.width)) std::abort();
  } catch (const resnet::Error& error) {
    if (error.code() != resnet::ExitCode::bad_data && error.code() != resnet::ExitCode::limit) std::abort();
  }
  return 0;
}

#pragma once
// One pair of functions a format, behind decode.h: `name` is escaped already, the orientation is the caller's work, and
// the caller has checked the limit of pixels that the probe reports.

#include "data/decode.h"

namespace resnet {

ImageInfo probe_jpeg(std::span<const std::byte> file, const std::string& name);
Image decode_jpeg(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                  const DecodeOptions& options);

ImageInfo probe_png(std::span<const std::byte> file, const std::string& name);
Image decode_png(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                 const DecodeOptions& options);

ImageInfo probe_webp(std::span<const std::byte> file, const std::string& name);
Image decode_webp(std::span<const std::byte> file, const std::string& name, const ImageInfo& info,
                  const DecodeOptions& options);

}  // namespace resnet

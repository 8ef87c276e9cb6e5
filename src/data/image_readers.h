#pragma once
// One pair of functions a format, behind decode.h: `name` is escaped already, the orientation is the caller's work, and
// the caller has checked the limit of pixels that the probe reports.

#include "data/decode.h"

namespace resnet {

/// Where a format bounds in no way how many pixels a byte may stand for: refuses more than 4 million of them from fewer
/// `bytes` than a byte for 8192 each, as many as the flattest PNG has. What encoders make of a plain photo has 400 a
/// byte. Throws UserError limit.
void refuse_bomb(const ImageInfo& info, uint64_t bytes, const std::string& name);

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

// Feeds the WebP reader any bytes.
// Run: make fuzz, or build/fuzz/fuzz/fuzz_webp NEW_FINDS fuzz/corpus/webp -max_len=4096

#include "image_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  return fuzz_image(resnet::ImageFormat::webp, bytes, size);
}

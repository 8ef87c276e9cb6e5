// Feeds the PNG reader any bytes.
// Run: make fuzz, or build/fuzz/fuzz/fuzz_png NEW_FINDS fuzz/corpus/png -max_len=4096

#include "image_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  return fuzz_image(resnet::ImageFormat::png, bytes, size);
}

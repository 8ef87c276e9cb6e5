// Feeds the JPEG reader any bytes.
// Run: make fuzz, or build/fuzz/fuzz/fuzz_jpeg NEW_FINDS fuzz/corpus/jpeg -max_len=4096

#include "image_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  return fuzz_image(resnet::ImageFormat::jpeg, bytes, size);
}

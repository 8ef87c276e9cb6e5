#pragma once
// Weight gradient of a stem: a convolution that reads an image with few channels, row-major.

#include <cstddef>
#include <cstdint>

namespace resnet {

/// x [N,C,H,W] row-major, dy [N][ceil(K/B)][Ho][Wo][B] -> dw [K,C,R,S] row-major.
struct StemWeightGrad {
  int64_t N = 0, C = 0, H = 0, W = 0;
  int64_t K = 0, R = 0, S = 0;  ///< S is 1 to 7
  int64_t stride = 1;
  int64_t pad = 0;
  int64_t Ho = 0, Wo = 0;
  const float* x = nullptr;
  const float* dy = nullptr;
  float* dw = nullptr;
  void* scratch = nullptr;  ///< stem_scratch_bytes, 64-byte aligned
  int threads = 1;          ///< results do not depend on it
};

constexpr int64_t kStemLargestS = 7;
constexpr int64_t kStemChunks = 32;  ///< the batch is summed in this many parts, whatever the threads

/// For blocks of 8 and of 16 channels.
size_t stem_scratch_bytes(const StemWeightGrad& p);

}  // namespace resnet

// [1, 2, 1] x [1, 2, 1] / 16 over a mirrored border, then every stride-th pixel.

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

/// The three rows or columns of a window, mirrored at the border.
struct Taps {
  int64_t at[3];
};
RESNET_INLINE Taps taps_of(int64_t window, int64_t stride, int64_t extent) {
  const int64_t middle = window * stride;
  return {{middle > 0 ? middle - 1 : 1, middle, middle + 1 < extent ? middle + 1 : extent - 2}};
}

RESNET_INLINE int64_t map_bytes(const MapSize& size, int64_t B) {
  return size.N * ceil_div(size.C, B) * size.H * size.W * B * 4;
}

template <int B>
void blur_pool(const BlurPool& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B), H = args.size.H, W = args.size.W;
  const Vec<B> quarter = splat<B>(0.25f), half = splat<B>(0.5f);
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    const float* x = args.x + map * H * W * B;
    float* y = args.y + map * args.Ho * args.Wo * B;
    for (int64_t ho = 0; ho < args.Ho; ++ho) {
      const Taps rows = taps_of(ho, args.stride_h, H);
      const float* top = x + rows.at[0] * W * B;
      const float* middle = x + rows.at[1] * W * B;
      const float* bottom = x + rows.at[2] * W * B;
      const auto column = [&](int64_t w) __attribute__((always_inline)) {
        return quarter * (load<B>(top + w * B) + load<B>(bottom + w * B)) + half * load<B>(middle + w * B);
      };
      for (int64_t wo = 0; wo < args.Wo; ++wo, y += B) {
        const Taps columns = taps_of(wo, args.stride_w, W);
        store<B>(y, quarter * (column(columns.at[0]) + column(columns.at[2])) + half * column(columns.at[1]));
      }
    }
  }
}

/// Scattered, as mirrored windows have no simple inverse; one thread has the whole map, so the order is fixed.
template <int B>
void blur_pool_backward(const BlurPool& args) {
  const int64_t maps = args.size.N * ceil_div(args.size.C, B), H = args.size.H, W = args.size.W;
  constexpr float kTaps[3] = {0.25f, 0.5f, 0.25f};
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < maps; ++map) {
    const float* dy = args.x + map * args.Ho * args.Wo * B;
    float* dx = args.y + map * H * W * B;
    for (int64_t p = 0; p < H * W * B; p += B) store<B>(dx + p, zero<B>());
    for (int64_t ho = 0; ho < args.Ho; ++ho) {
      const Taps rows = taps_of(ho, args.stride_h, H);
      for (int64_t wo = 0; wo < args.Wo; ++wo, dy += B) {
        const Taps columns = taps_of(wo, args.stride_w, W);
        const Vec<B> g = load<B>(dy);
        for (int r = 0; r < 3; ++r)
          for (int s = 0; s < 3; ++s) {
            float* to = dx + (rows.at[r] * W + columns.at[s]) * B;
            store<B>(to, load<B>(to) + splat<B>(kTaps[r] * kTaps[s]) * g);
          }
      }
    }
  }
}

}  // namespace

template <int B>
void add_blur_pool(SimdKernels& table) {
  table.blur_pool = blur_pool<B>;
  table.blur_pool_backward = blur_pool_backward<B>;
}
template void add_blur_pool<8>(SimdKernels&);
template void add_blur_pool<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA

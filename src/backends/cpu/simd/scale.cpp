// Maps times a factor, and the factor's gradient.

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

RESNET_INLINE int64_t map_bytes(const MapSize& size, int64_t B) {
  return size.N * ceil_div(size.C, B) * size.H * size.W * B * 4;
}

template <int B>
void scale(const Scale& args) {
  const int64_t blocks = ceil_div(args.size.C, B), pixels = args.size.H * args.size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t map = 0; map < args.size.N * blocks; ++map) {
    const Vec<B> s = args.per_image ? splat<B>(args.s[map / blocks]) : load<B>(args.s + map * B);
    const float* x = args.x + map * pixels * B;
    float* y = args.y + map * pixels * B;
    for (int64_t p = 0; p < pixels * B; p += B) store<B>(y + p, load<B>(x + p) * s);
  }
}

/// sum[b] += a[b] * c[b] over `pixels`: in f32 over at most kRun of them, then in double.
template <int B>
RESNET_INLINE void add_products(double* sum, const float* a, const float* c, int64_t pixels) {
  for (int64_t first = 0; first < pixels; first += kRun) {
    Vec<B> run = {};
    for (int64_t p = first * B; p < smaller(first + kRun, pixels) * B; p += B) run += load<B>(a + p) * load<B>(c + p);
    add_to<B>(sum, run);
  }
}

template <int B>
void scale_backward(const ScaleBackward& args) {
  const int64_t blocks = ceil_div(args.size.C, B), pixels = args.size.H * args.size.W;
  const int64_t maps = args.per_image ? blocks : 1;  // that share a factor
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, map_bytes(args.size, B)))
  for (int64_t item = 0; item < args.size.N * blocks / maps; ++item) {
    double sum[B] = {};
    for (int64_t map = item * maps; map < (item + 1) * maps; ++map)
      add_products<B>(sum, args.dy + map * pixels * B, args.x + map * pixels * B, pixels);
    if (args.per_image) {
      double total = 0;
      for (int b = 0; b < B; ++b) total += sum[b];
      args.ds[item] = static_cast<float>(total);
    } else {
      for (int b = 0; b < B; ++b) args.ds[item * B + b] = static_cast<float>(sum[b]);
    }
  }
}

}  // namespace

template <int B>
void add_scale(SimdKernels& table) {
  table.scale = scale<B>;
  table.scale_backward = scale_backward<B>;
}
template void add_scale<8>(SimdKernels&);
template void add_scale<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA

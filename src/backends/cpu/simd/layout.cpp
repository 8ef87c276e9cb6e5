// Conversions between plain and blocked layouts, and channels moved between blocks.

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

using Vec8 = Vec<8>;

/// Transposes rows[i][j] of an 8 by 8 tile in place.
RESNET_INLINE void transpose(Vec8 (&rows)[8]) {
  Vec8 t[8], u[8];
  RESNET_UNROLL
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(rows[i], rows[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    t[i + 1] = __builtin_shufflevector(rows[i], rows[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
  }
  RESNET_UNROLL
  for (int i = 0; i < 8; i += 4) {
    u[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
    u[i + 1] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    u[i + 2] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
    u[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
  }
  RESNET_UNROLL
  for (int i = 0; i < 4; ++i) {
    rows[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    rows[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}

/// One block of B channels, of which the first `channels` exist.
template <int B>
void block_to_blocked(const float* from, float* to, int64_t channels, int64_t pixels) {
  int64_t p = 0;
  for (; p + 8 <= pixels; p += 8) {
    for (int64_t first = 0; first < B; first += 8) {
      Vec8 tile[8];
      RESNET_UNROLL
      for (int b = 0; b < 8; ++b) tile[b] = first + b < channels ? load<8>(from + (first + b) * pixels + p) : Vec8{};
      if (first < channels) transpose(tile);
      RESNET_UNROLL
      for (int i = 0; i < 8; ++i) store<8>(to + (p + i) * B + first, tile[i]);
    }
  }
  for (; p < pixels; ++p)
    for (int64_t b = 0; b < B; ++b) to[p * B + b] = b < channels ? from[b * pixels + p] : 0.0f;
}

template <int B>
void block_to_plain(const float* from, float* to, int64_t channels, int64_t pixels) {
  int64_t p = 0;
  for (; p + 8 <= pixels; p += 8) {
    for (int64_t first = 0; first < channels; first += 8) {
      Vec8 tile[8];
      RESNET_UNROLL
      for (int i = 0; i < 8; ++i) tile[i] = load<8>(from + (p + i) * B + first);
      transpose(tile);
      RESNET_UNROLL
      for (int b = 0; b < 8; ++b)
        if (first + b < channels) store<8>(to + (first + b) * pixels + p, tile[b]);
    }
  }
  for (; p < pixels; ++p)
    for (int64_t b = 0; b < channels; ++b) to[b * pixels + p] = from[p * B + b];
}

template <int B>
void to_blocked(const ActivationLayout& args) {
  const MapSize& size = args.size;
  const int64_t blocks = ceil_div(size.C, B), pixels = size.H * size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, size.N* blocks* pixels* B * 4))
  for (int64_t item = 0; item < size.N * blocks; ++item) {
    const int64_t n = item / blocks, channel = item % blocks * B;
    block_to_blocked<B>(args.from + (n * size.C + channel) * pixels, args.to + item * pixels * B,
                        smaller(B, size.C - channel), pixels);
  }
}

template <int B>
void to_plain(const ActivationLayout& args) {
  const MapSize& size = args.size;
  const int64_t blocks = ceil_div(size.C, B), pixels = size.H * size.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, size.N* blocks* pixels* B * 4))
  for (int64_t item = 0; item < size.N * blocks; ++item) {
    const int64_t n = item / blocks, channel = item % blocks * B;
    block_to_plain<B>(args.from + item * pixels * B, args.to + (n * size.C + channel) * pixels,
                      smaller(B, size.C - channel), pixels);
  }
}

/// `lanes` of the B floats of every pixel, from one channel block to another.
template <int B>
void copy_lanes(const float* from, float* to, int64_t pixels, int64_t lanes) {
  if (lanes == B) {
    for (int64_t p = 0; p < pixels; ++p) store<B>(to + p * B, load<B>(from + p * B));
  } else if (lanes == B / 2) {  // from 16 channels to the middle of 32, in blocks of 16
    for (int64_t p = 0; p < pixels; ++p) store<B / 2>(to + p * B, load<B / 2>(from + p * B));
  } else {
    for (int64_t p = 0; p < pixels; ++p)
      for (int64_t i = 0; i < lanes; ++i) to[p * B + i] = from[p * B + i];
  }
}

template <int B>
void shift_channels(const ChannelShift& args) {
  const MapSize& size = args.size;
  const int64_t blocks_in = ceil_div(size.C, B), blocks = ceil_div(args.channels, B), pixels = size.H * size.W;
  const int64_t bytes = size.N * blocks * pixels * B * 4;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, bytes))
  for (int64_t item = 0; item < size.N * blocks; ++item) {
    const int64_t n = item / blocks, channel = item % blocks * B;
    float* y = args.y + item * pixels * B;
    // x's channel in lane 0 (it may lie before x's first), and the lanes whose channel both x and y have.
    const int64_t source = channel + args.offset;
    const int64_t first = larger(0, -source);
    const int64_t last = smaller(smaller(B, args.channels - channel), size.C - source);
    if (first > 0 || last < B)
      for (int64_t p = 0; p < pixels; ++p) store<B>(y + p * B, zero<B>());
    // They lie in one block of x, or at the end of one and the beginning of the next.
    for (int64_t lane = first; lane < last;) {
      const int64_t c = source + lane, lanes = smaller(last - lane, B - c % B);
      copy_lanes<B>(args.x + (n * blocks_in + c / B) * pixels * B + c % B, y + lane, pixels, lanes);
      lane += lanes;
    }
  }
}

/// Calls f(plain offset of (o, i, 0), blocked offset of the same, in range) for every o, i of a
/// block; the blocked side steps by B * B from one filter pixel to the next.
template <int B, class F>
RESNET_INLINE void for_each_filter(const WeightLayout& args, int64_t item, const F& f) {
  const int64_t in_blocks = ceil_div(args.I, B), pixels = args.H * args.W;
  const int64_t first_o = item / in_blocks * B, first_i = item % in_blocks * B;
  for (int64_t o = 0; o < B; ++o)
    for (int64_t i = 0; i < B; ++i)
      f(((first_o + o) * args.I + first_i + i) * pixels, item * pixels * B * B + i * B + o,
        first_o + o < args.O && first_i + i < args.I);
}

template <int B>
void weights_to_blocked(const WeightLayout& args) {
  const int64_t items = ceil_div(args.O, B) * ceil_div(args.I, B), pixels = args.H * args.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, items* pixels* B* B * 4))
  for (int64_t item = 0; item < items; ++item)
    for_each_filter<B>(args, item, [&](int64_t plain, int64_t blocked, bool exists) {
      for (int64_t p = 0; p < pixels; ++p) args.to[blocked + p * B * B] = exists ? args.from[plain + p] : 0.0f;
    });
}

template <int B>
void weights_to_plain(const WeightLayout& args) {
  const int64_t items = ceil_div(args.O, B) * ceil_div(args.I, B), pixels = args.H * args.W;
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, items* pixels* B* B * 4))
  for (int64_t item = 0; item < items; ++item)
    for_each_filter<B>(args, item, [&](int64_t plain, int64_t blocked, bool exists) {
      for (int64_t p = 0; exists && p < pixels; ++p) args.to[plain + p] = args.from[blocked + p * B * B];
    });
}

}  // namespace

template <int B>
void add_layout(SimdKernels& table) {
  table.shift_channels = shift_channels<B>;
  table.to_blocked = to_blocked<B>;
  table.to_plain = to_plain<B>;
  table.weights_to_blocked = weights_to_blocked<B>;
  table.weights_to_plain = weights_to_plain<B>;
}
template void add_layout<8>(SimdKernels&);
template void add_layout<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA

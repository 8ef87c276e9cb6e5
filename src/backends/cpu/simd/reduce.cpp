// Sums per channel (gradients of biases) and norms.

#include <math.h>

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

template <int B>
void channel_sum(const ChannelSum& args) {
  const MapSize& size = args.size;
  const int64_t blocks = ceil_div(size.C, B), pixels = size.H * size.W;
  const Parts parts = parts_of(size);
  double* partial = static_cast<double*>(args.scratch);  // [parts][blocks][B]
#pragma omp parallel num_threads(useful_threads(args.threads, size.N* blocks* pixels* B * 4))
  {
#pragma omp for schedule(static)
    for (int64_t item = 0; item < parts.count * blocks; ++item) {
      const int64_t part = item / blocks, block = item % blocks;
      double sum[B] = {};
      for (int64_t n = part * parts.images; n < smaller(size.N, (part + 1) * parts.images); ++n) {
        const float* x = args.x + (n * blocks + block) * pixels * B;
        for (int64_t p = 0; p < pixels; p += kRun) add_to<B>(sum, sum_of_run<B>(x + p * B, smaller(kRun, pixels - p)));
      }
      for (int b = 0; b < B; ++b) partial[item * B + b] = sum[b];
    }
#pragma omp for schedule(static)
    for (int64_t c = 0; c < size.C; ++c) {
      double sum = 0;
      for (int64_t part = 0; part < parts.count; ++part) sum += partial[part * blocks * B + c];
      args.sum[c] = static_cast<float>(sum);
    }
  }
}

void column_sum(const ColumnSum& args) {
  constexpr int64_t kStrip = 64;
  const int64_t strips = ceil_div(args.columns, kStrip);
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, args.rows* args.columns * 4))
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t first = strip * kStrip, width = smaller(kStrip, args.columns - first);
    double sum[kStrip] = {};
    for (int64_t row = 0; row < args.rows; ++row) {
      const float* x = args.x + row * args.columns + first;
      for (int64_t i = 0; i < width; ++i) sum[i] += static_cast<double>(x[i]);
    }
    for (int64_t i = 0; i < width; ++i) args.sum[first + i] = static_cast<float>(sum[i]);
  }
}

template <int D>
struct DoublesOf {
  typedef double type __attribute__((vector_size(D * 8)));
};
/// As many doubles as a register holds.
constexpr int kDoubles = kNativeLanes / 2;
using Doubles = DoublesOf<kDoubles>::type;

/// Sum of squares of `rows` rows of B floats, `stride` floats apart, of each of which the first `lanes` count.
template <int B>
double squares(const float* x, int64_t rows, int64_t stride, int64_t lanes) {
  constexpr int kParts = B / kDoubles;
  Doubles sum[kParts] = {};
  for (int64_t r = 0; r < rows; ++r) {
    RESNET_UNROLL
    for (int i = 0; i < kParts; ++i) {
      const Doubles v = __builtin_convertvector(load<kDoubles>(x + r * stride + i * kDoubles), Doubles);
      sum[i] += v * v;
    }
  }
  double total = 0;
  for (int64_t b = 0; b < lanes; ++b) total += sum[b / kDoubles][b % kDoubles];
  return total;
}

/// Partial sum `item`: a run of a plain tensor, a channel block of an image, a block of filters.
template <int B>
double squares_of_item(const L2Norm& args, int64_t item) {
  const MapSize& size = args.size;
  const int64_t blocks = ceil_div(size.C, B), pixels = size.H * size.W;
  switch (args.storage) {
    case Storage::plain: {
      const float* x = args.x + item * kL2NormRun;
      const int64_t count = smaller(kL2NormRun, size.N * size.C * pixels - item * kL2NormRun);
      double sum = squares<B>(x, count / B, B, B);
      for (int64_t i = count / B * B; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      return sum;
    }
    case Storage::maps:
      return squares<B>(args.x + item * pixels * B, pixels, B, smaller(B, size.C - item % blocks * B));
    case Storage::filters: {
      const int64_t lanes = smaller(B, size.N - item / blocks * B), depth = smaller(B, size.C - item % blocks * B);
      double sum = 0;
      for (int64_t i = 0; i < depth; ++i) sum += squares<B>(args.x + (item * pixels * B + i) * B, pixels, B * B, lanes);
      return sum;
    }
  }
  return 0;
}

template <int B>
void l2_norm(const L2Norm& args) {
  const MapSize& size = args.size;
  const int64_t elements = size.N * size.C * size.H * size.W;
  const int64_t items = args.storage == Storage::plain  ? ceil_div(elements, kL2NormRun)
                        : args.storage == Storage::maps ? size.N * ceil_div(size.C, B)
                                                        : ceil_div(size.N, B) * ceil_div(size.C, B);
  double* partial = static_cast<double*>(args.scratch);
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, elements * 4))
  for (int64_t item = 0; item < items; ++item) partial[item] = squares_of_item<B>(args, item);
  double sum = 0;
  for (int64_t item = 0; item < items; ++item) sum += partial[item];
  *args.norm = static_cast<float>(sqrt(sum));
}

}  // namespace

template <int B>
void add_reduce(SimdKernels& table) {
  table.channel_sum = channel_sum<B>;
  table.column_sum = column_sum;
  table.l2_norm = l2_norm<B>;
}
template void add_reduce<8>(SimdKernels&);
template void add_reduce<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA

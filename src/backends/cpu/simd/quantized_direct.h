#pragma once
// Convolution of bytes as a matrix product: rows are output pixels, whose taps are gathered into a panel that stays in
// the second cache, columns are filters, packed in slivers as wide as two registers.

#include "backends/cpu/simd/quantized_epilogue.h"

namespace resnet::simd::RESNET_ISA {
namespace {

template <class Kind>
struct Direct {
  typedef typename Kind::Pixel Pixel;
  typedef typename Kind::Weight Weight;

  const QuantizedConvSize& p;
  int64_t channels, filters, taps, groups, slivers, stride, rows, panel;

  explicit Direct(const QuantizedConvSize& size)
      : p(size),
        channels(size.C / size.groups),
        filters(size.K / size.groups),
        taps(size.R * size.S * channels),
        groups(round_up(taps, Kind::kStep) / Kind::kGroup),
        slivers(ceil_div(filters, kColumns)),
        stride(panel_stride<Kind>(groups * Kind::kGroup)),
        rows(size.N * size.Ho * size.Wo),
        panel(panel_rows(192 << 10, stride * static_cast<int64_t>(sizeof(Pixel)), 96, rows, size.threads)) {}

  int64_t sliver_elements() const { return groups * Kind::kGroup * kColumns; }
  size_t packed_bytes() const { return static_cast<size_t>(p.groups * slivers * sliver_elements()) * sizeof(Weight); }
  size_t panel_bytes() const { return static_cast<size_t>(round_up((panel + kRows) * stride, 64)) * sizeof(Pixel); }
  size_t scratch_bytes() const { return static_cast<size_t>(p.threads) * panel_bytes(); }

  /// Taps in the order in which a row is gathered: r, s, channel.
  void pack(const int8_t* w, Weight* packed) const {
#pragma omp parallel for schedule(static) num_threads(p.threads)
    for (int64_t i = 0; i < p.groups * slivers; ++i) {
      Weight* sliver = packed + i * sliver_elements();
      for (int64_t j = 0; j < sliver_elements(); ++j) sliver[j] = 0;
      const int64_t first = i % slivers * kColumns;
      for (int64_t column = 0; column < smaller(kColumns, filters - first); ++column) {
        const int8_t* from = w + (i / slivers * filters + first + column) * taps;
        for (int64_t rs = 0; rs < p.R * p.S; ++rs) {
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t tap = rs * channels + c;
            sliver[(tap / Kind::kGroup * kColumns + column) * Kind::kGroup + tap % Kind::kGroup] =
                from[c * p.R * p.S + rs];
          }
        }
      }
    }
  }

  /// The taps of `count` output pixels from `first` on, for one group.
  void gather(const QuantizedConvArgs& args, int64_t first, int64_t count, int64_t group, Pixel* to) const {
    int64_t wo = first % p.Wo, ho = first / p.Wo % p.Ho, n = first / p.Wo / p.Ho;
    [[maybe_unused]] uint8_t around[kRegister];
    if (brief()) {
      for (int64_t i = 0; i < kRegister; ++i) around[i] = args.padding[i % p.C];
    }
    for (int64_t row = 0; row < count;) {
      int64_t done = 0;
      if constexpr (sizeof(Pixel) == 1) {
        if (brief()) done = gather_brief(args, n, ho, wo, count - row, around, to);
      }
      if (done == 0) {
        gather(args, n, ho, wo, group, to);
        done = 1;
      }
      row += done;
      to += done * stride;
      if ((wo += done) < p.Wo) continue;
      wo = 0;
      if (++ho < p.Ho) continue;
      ho = 0;
      ++n;
    }
  }

  /// Whether a register holds a row of the taps of a pixel, as in a first layer.
  static constexpr int64_t kRegister = 32;
  bool brief() const { return sizeof(Pixel) == 1 && p.groups == 1 && p.dilation_w == 1 && p.S * p.C <= kRegister; }

  /// The taps of one output pixel, or of as many of `count` neighbours as have none outside the map: how many. Whole
  /// registers are stored; what is too much in one, the next one, or a weight of 0, takes back.
  int64_t gather_brief(const QuantizedConvArgs& args, int64_t n, int64_t ho, int64_t wo, int64_t count,
                       const uint8_t* around, uint8_t* to) const {
    const int64_t h0 = ho * p.stride_h - p.pad_h, w0 = wo * p.stride_w - p.pad_w;
    const int64_t pieces = p.R, piece = p.S * p.C, line = p.W * p.C, between = p.dilation_h * line;
    const uint8_t *image = args.x + n * p.H * line, *end = args.x + p.N * p.H * line;
    if (h0 >= 0 && h0 + (pieces - 1) * p.dilation_h < p.H && w0 >= 0 && w0 + p.S <= p.W) {
      const uint8_t* from = image + h0 * line + w0 * p.C;
      const int64_t step = p.stride_w * p.C, distance = stride;
      const int64_t inside = smaller(smaller(count, p.Wo - wo), (p.W - p.S - w0) / p.stride_w + 1);
      const int64_t room = end - from - (pieces - 1) * between - kRegister;
      const int64_t pixels = room < 0 ? 0 : smaller(inside, room / step + 1);
      for (int64_t i = 0; i < pixels; ++i, from += step, to += distance) {
        uint8_t* tap = to;
        const uint8_t* pixel = from;
        for (int64_t r = 0; r < pieces; ++r, tap += piece, pixel += between) __builtin_memcpy(tap, pixel, kRegister);
      }
      if (pixels > 0) return pixels;
    }
    const int64_t left = smaller(larger(0, -w0), p.S), right = larger(left, smaller(p.S, p.W - w0));
    for (int64_t r = 0; r < pieces; ++r, to += piece) {
      const int64_t h = h0 + r * p.dilation_h;
      const bool in_rows = h >= 0 && h < p.H && left < right;
      if (left > 0 || !in_rows) __builtin_memcpy(to, around, kRegister);
      if (!in_rows) continue;
      const uint8_t* from = image + h * line + (w0 + left) * p.C;
      copy_bytes(to + left * p.C, from, (right - left) * p.C, end - from);
      if (right < p.S) __builtin_memcpy(to + right * p.C, around, kRegister);
    }
    return 1;
  }

  /// The taps of one output pixel.
  void gather(const QuantizedConvArgs& args, int64_t n, int64_t ho, int64_t wo, int64_t group, Pixel* to) const {
    const int64_t first = group * channels;
    const uint8_t* end = args.x + p.N * p.H * p.W * p.C;
    const bool runs = p.groups == 1 && p.dilation_w == 1;  // a row of taps lies in one piece
    const int64_t h0 = ho * p.stride_h - p.pad_h, w0 = wo * p.stride_w - p.pad_w;
    if (runs && h0 >= 0 && h0 + (p.R - 1) * p.dilation_h < p.H && w0 >= 0 && w0 + p.S <= p.W) {
      const uint8_t* from = args.x + ((n * p.H + h0) * p.W + w0) * p.C;
      for (int64_t r = 0; r < p.R; ++r, to += p.S * p.C, from += p.dilation_h * p.W * p.C)
        Kind::gather(to, from, p.S * p.C, end - from);
      return;
    }
    for (int64_t r = 0; r < p.R; ++r) {
      const int64_t h = h0 + r * p.dilation_h, w = w0;
      const uint8_t* row = args.x + (n * p.H + h) * p.W * p.C + first;
      const bool in_rows = h >= 0 && h < p.H;
      if (runs && in_rows && w >= 0 && w + p.S <= p.W) {
        const uint8_t* from = row + w * p.C;
        Kind::gather(to, from, p.S * p.C, end - from);
        to += p.S * channels;
        continue;
      }
      for (int64_t s = 0; s < p.S; ++s, to += channels) {
        const int64_t column = w + s * p.dilation_w;
        const bool inside = in_rows && column >= 0 && column < p.W;
        const uint8_t* from = inside ? row + column * p.C : args.padding + first;
        Kind::gather(to, from, channels, inside ? end - from : channels);
      }
    }
  }

  /// Whether the pixels of x, as they lie there, are the rows of a panel.
  bool in_place() const {
    return sizeof(Pixel) == 1 && p.R == 1 && p.S == 1 && p.stride_h == 1 && p.stride_w == 1 && p.pad_h == 0 &&
           p.pad_w == 0 && channels % Kind::kStep == 0;
  }

  template <Residual kResidual>
  void run(const QuantizedConvArgs& args) const {
    const int64_t panels = ceil_div(rows, panel);
#pragma omp parallel num_threads(p.threads)
    {
      auto* gathered = reinterpret_cast<Pixel*>(static_cast<char*>(args.scratch) +
                                                static_cast<size_t>(omp_get_thread_num()) * panel_bytes());
      const Range mine = share(panels, omp_get_thread_num(), omp_get_num_threads());
      for (int64_t i = mine.first; i < mine.last; ++i) {
        const int64_t first = i * panel, count = smaller(panel, rows - first);
        for (int64_t group = 0; group < p.groups; ++group) {
          // A tile reads kRows rows, so the last one of x may have to be gathered all the same.
          const int64_t ready = in_place() ? count / kRows * kRows : 0;
          const auto* pixels = reinterpret_cast<const Pixel*>(args.x + first * p.C + group * channels);
          multiply<kResidual>(args, pixels, p.C, first, ready, group);
          gather(args, first + ready, count - ready, group, gathered);
          multiply<kResidual>(args, gathered, stride, first + ready, count - ready, group);
        }
      }
    }
  }

  /// `count` pixels from `first` on, whose rows lie at a, `distance` elements apart.
  template <Residual kResidual>
  void multiply(const QuantizedConvArgs& args, const Pixel* a, int64_t distance, int64_t first, int64_t count,
                int64_t group) const {
    if (count == 0) return;
    const auto* packed = static_cast<const Weight*>(args.packed);
    for (int64_t sliver = 0; sliver < slivers; ++sliver) {
      const int64_t k = sliver * kColumns;
      const Epilogue<kResidual> epilogue(args, p.K, group * filters + k, smaller(kColumns, filters - k));
      const Weight* b = packed + (group * slivers + sliver) * sliver_elements();
      for (int64_t row = 0; row < count; row += kRows) {
        alignas(64) uint32_t sums[kRows * kColumns];
        Kind::tile(a + row * distance, distance, b, groups, sums);
        epilogue.write_rows(sums, smaller(kRows, count - row), first + row);
      }
    }
  }
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA

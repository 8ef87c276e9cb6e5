#pragma once
// Convolution of bytes by an engine whose register tiles are Engine::kRows pixels by kColumns filters: AMX's or VNNI's.
// What surrounds the products takes much of the time where they are that fast: whole registers of bytes are stored, and
// pixels are not gathered where they lie right or padding makes them so.

#include "backends/cpu/simd/quantized_direct.h"

#if defined(RESNET_AVX512)

namespace resnet::simd::RESNET_ISA {
namespace {

/// Where the taps of a tile's neighbouring rows lie, row by row `stride` bytes apart: `pieces` pieces of `steps` times
/// Engine::kStep taps, `gap` bytes from the end of one to the next.
struct Taps {
  int64_t stride, steps, pieces, gap;
  bool streamed;  ///< whether the weights are more than the first cache holds beside them
};

/// What Direct wants to know.
template <int kTaps>
struct TileBytes {
  typedef uint8_t Pixel;
  typedef int8_t Weight;
  static constexpr int kGroup = 4, kStep = kTaps;
  static RESNET_INLINE void gather(Pixel* to, const uint8_t* from, int64_t n, int64_t room) {
    if (n % 64 != 0) return copy_bytes(to, from, n, room);
    for (int64_t i = 0; i < n; i += 64) store_u32(to + i, load_u32(from + i));
  }
};

/// Filters of y from `first` on.
struct TileFilters {
  int64_t first, count;
};

/// Which of y's pixels the rows of a tile are.
template <int64_t kRows>
struct TilePlaces {
  struct Run {
    int64_t row, rows, pixel;  ///< rows of the tile, and the pixel of y that the first of them is
  };
  int64_t runs = 0;
  Run run[kRows];

  void add(const Run& more) { run[runs++] = more; }
};

/// Pixels of x are read where they lie (1x1), or from a copy with padding around it, whose neighbours are a tile's rows
/// (stride 1), or from a panel that their taps are gathered in.
template <class Engine>
struct Tiled : Direct<TileBytes<Engine::kStep>> {
  typedef Direct<TileBytes<Engine::kStep>> Base;
  using Base::gather, Base::in_place, Base::packed_bytes, Base::sliver_elements;
  using Base::p, Base::channels, Base::filters, Base::groups, Base::slivers, Base::stride, Base::rows;

  /// Of a thread's second cache: the least panel, and a band.
  static constexpr int64_t kLeastPanel = 24 << 10, kBandBytes = 96 << 10;

  int64_t blocks;                  ///< of Engine::kRows pixels
  int64_t panel_blocks;            ///< of them
  int64_t padded_w, padded_bytes;  ///< pixels, and bytes, of a row with padding
  int64_t band_rows;               ///< of y, for which the rows of x with padding fit kBandBytes

  explicit Tiled(const QuantizedConvSize& size)
      : Base(size),
        blocks(ceil_div(rows, Engine::kRows)),
        panel_blocks(larger(1, panel_limit() / (Engine::kRows * stride))),
        padded_w(size.W + 2 * size.pad_w),
        padded_bytes(padded_w * size.C) {
    const int64_t fit = larger(1, kBandBytes / larger(1, padded_bytes) - (p.R - 1));
    band_rows = ceil_div(p.Ho, ceil_div(p.Ho, fit));
  }

  /// A panel is read as often as the weights are, so it may be as large.
  int64_t panel_limit() const {
    return larger(kLeastPanel, smaller(Engine::kPanelBytes, static_cast<int64_t>(packed_bytes()) / p.groups));
  }
  /// Whether to pad. The tiles then compute columns between one row's end and the next one's begin, too; gathering
  /// costs as much as the products of kGatherFilters.
  bool pads() const {
    return p.R * p.S > 1 && p.stride_h == 1 && p.stride_w == 1 && p.dilation_h == 1 && p.dilation_w == 1 &&
           p.groups == 1 && p.C % Engine::kStep == 0 && p.R * padded_bytes <= Engine::kPanelBytes &&
           (padded_w - p.Wo) * p.K < Engine::kGatherFilters * p.Wo;
  }
  int64_t band_bytes() const { return (band_rows + p.R - 1) * padded_bytes + (Engine::kRows + p.S) * p.C; }
  size_t thread_bytes() const {
    if (pads()) return static_cast<size_t>(round_up(band_bytes(), 64));
    return static_cast<size_t>((in_place() ? 1 : panel_blocks) * Engine::kRows * stride);
  }
  size_t scratch_bytes() const { return static_cast<size_t>(p.threads) * thread_bytes(); }

  template <Residual kResidual>
  void run(const QuantizedConvArgs& args) const {
    switch (saturation_of(args)) {
      case Saturation::u8: return run_as<kResidual, Saturation::u8>(args);
      case Saturation::i8: return run_as<kResidual, Saturation::i8>(args);
      case Saturation::other: return run_as<kResidual, Saturation::other>(args);
    }
  }

  template <Residual kResidual, Saturation kRange>
  void run_as(const QuantizedConvArgs& args) const {
#pragma omp parallel num_threads(p.threads)
    {
      [[maybe_unused]] const typename Engine::InUse in_use;
      const int thread = omp_get_thread_num(), team = omp_get_num_threads();
      auto* own = static_cast<uint8_t*>(args.scratch) + static_cast<size_t>(thread) * thread_bytes();
      pads() ? run_padded<kResidual, kRange>(args, thread, team, own)
             : run_panels<kResidual, kRange>(args, thread, team, own);
    }
  }

  template <Residual kResidual, Saturation kRange>
  void run_padded(const QuantizedConvArgs& args, int thread, int team, uint8_t* band) const {
    const Taps where = {.stride = p.C,
                        .steps = p.S * p.C / Engine::kStep,
                        .pieces = p.R,
                        .gap = padded_bytes - p.S * p.C,
                        .streamed = false};
    const Range mine = share(p.N * p.Ho, thread, team);
    typename Engine::template Pipe<kResidual, kRange> pipe(args, p.K, sliver_elements());
    for (int64_t row = mine.first; row < mine.last;) {
      const int64_t n = row / p.Ho, h = row % p.Ho;
      const int64_t count = smaller(smaller(band_rows, p.Ho - h), mine.last - row);
      pad(args, n, h - p.pad_h, count + p.R - 1, band);
      const int64_t columns = (count - 1) * padded_w + p.Wo;
      for (int64_t sliver = 0; sliver < slivers; sliver += Engine::kSlivers) {
        const int8_t* b = static_cast<const int8_t*>(args.packed) + sliver * sliver_elements();
        const int64_t some = smaller(Engine::kSlivers, slivers - sliver);
        for (int64_t first = 0; first < columns; first += Engine::kRows) {
          auto& places = pipe.places();
          const int64_t last = smaller(columns, first + Engine::kRows);
          for (int64_t at = first; at < last;) {
            const int64_t line = at / padded_w, w = at % padded_w, pixels = smaller(last - at, padded_w - w);
            if (w < p.Wo)
              places.add({.row = at - first, .rows = smaller(pixels, p.Wo - w), .pixel = (row + line) * p.Wo + w});
            at += pixels;
          }
          pipe.compute(band + first * p.C, where, b, some,
                       {.first = sliver * kColumns, .count = filters - sliver * kColumns});
        }
      }
      row += count;
    }
  }

  /// `count` rows of image n from h on, with padding.
  void pad(const QuantizedConvArgs& args, int64_t n, int64_t h, int64_t count, uint8_t* to) const {
    const auto fill = [&](int64_t pixels) {
      for (int64_t i = 0; i < pixels; ++i, to += p.C) copy_bytes(to, args.padding, p.C);
    };
    for (const int64_t last = h + count; h < last; ++h) {
      if (h < 0 || h >= p.H) {
        fill(padded_w);
        continue;
      }
      fill(p.pad_w);
      copy_bytes(to, args.x + (n * p.H + h) * p.W * p.C, p.W * p.C);
      to += p.W * p.C;
      fill(p.pad_w);
    }
  }

  template <Residual kResidual, Saturation kRange>
  void run_panels(const QuantizedConvArgs& args, int thread, int team, uint8_t* gathered) const {
    // By pixels, or where these are few by filters; where both are alike, by what there is more of: threads that share
    // filters each read all pixels.
    const int64_t by_pixels = ceil_div(blocks, team) * slivers, by_filters = ceil_div(slivers, team) * blocks;
    const bool alike = larger(by_pixels - by_filters, by_filters - by_pixels) * 64 <= by_filters;
    const bool pixels = alike ? blocks >= slivers : by_pixels < by_filters;
    const Range my_blocks = pixels ? share(blocks, thread, team) : Range{0, blocks};
    const Range my_slivers = pixels ? Range{0, slivers} : share(slivers, thread, team);
    for (int64_t block = my_blocks.first; block < my_blocks.last; block += panel_blocks) {
      const Range part = {block, smaller(my_blocks.last, block + panel_blocks)};
      for (int64_t group = 0; group < p.groups; ++group)
        multiply<kResidual, kRange>(args, part, my_slivers, group, gathered);
    }
  }

  template <Residual kResidual, Saturation kRange>
  void multiply(const QuantizedConvArgs& args, const Range& part, const Range& my_slivers, int64_t group,
                uint8_t* gathered) const {
    const int64_t first = part.first * Engine::kRows, last = smaller(rows, part.last * Engine::kRows);
    // The last block of x may have fewer rows than a tile reads.
    const int64_t ready = in_place() ? last / Engine::kRows * Engine::kRows : first;
    gather(args, ready, last - ready, group, gathered);
    const auto* packed = static_cast<const int8_t*>(args.packed) + group * slivers * sliver_elements();
    const int64_t together = larger(2, Engine::kWeightBytes / sliver_elements() / Engine::kSlivers * Engine::kSlivers);
    const int64_t steps = groups * TileBytes<Engine::kStep>::kGroup / Engine::kStep;
    const bool streamed = Engine::streams(Engine::kRows * stride + smaller(slivers, together) * sliver_elements());
    typename Engine::template Pipe<kResidual, kRange> pipe(args, p.K, sliver_elements());
    for (int64_t from = my_slivers.first; from < my_slivers.last; from += together) {
      const int64_t to = smaller(my_slivers.last, from + together);
      for (int64_t row = first; row < last; row += Engine::kRows) {
        const bool there = row < ready;
        const uint8_t* a = there ? args.x + row * p.C + group * channels : gathered + (row - ready) * stride;
        const Taps where = {
            .stride = there ? p.C : stride, .steps = steps, .pieces = 1, .gap = 0, .streamed = streamed};
        for (int64_t sliver = from; sliver < to; sliver += Engine::kSlivers) {
          const int64_t k = sliver * kColumns;
          pipe.places().add({.row = 0, .rows = smaller(Engine::kRows, last - row), .pixel = row});
          pipe.compute(a, where, packed + sliver * sliver_elements(), smaller(Engine::kSlivers, to - sliver),
                       {.first = group * filters + k, .count = filters - k});
        }
      }
    }
  }
};

}  // namespace
}  // namespace resnet::simd::RESNET_ISA

#endif

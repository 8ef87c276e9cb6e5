#include "ops/quantized_conv2d.h"

#include <algorithm>
#include <cstring>

#include "backends/cpu/kernels.h"
#include "backends/cpu/simd/isa_kernels.h"
#include "base/align.h"
#include "ops/quantize.h"

namespace resnet::cpu {
namespace {

using simd::QuantizedAlgorithm;

simd::QuantizedConvSize size_of_problem(const NodeRequest& request, int threads) {
  const Conv2dAttrs& a = std::get<QuantizedConv2dAttrs>(request.attributes).conv;
  const Shape& x = request.in[0].type.shape;
  const Shape& w = request.in[1].type.shape;
  const Shape& y = request.out[0].type.shape;
  return {.N = x[0],
          .C = x[1],
          .H = x[2],
          .W = x[3],
          .K = w[0],
          .R = w[2],
          .S = w[3],
          .Ho = y[2],
          .Wo = y[3],
          .stride_h = a.stride.h,
          .stride_w = a.stride.w,
          .pad_h = a.pad.h,
          .pad_w = a.pad.w,
          .dilation_h = a.dilation.h,
          .dilation_w = a.dilation.w,
          .groups = a.groups,
          .threads = threads};
}

const char* name_of(QuantizedAlgorithm algorithm) {
  switch (algorithm) {
    case QuantizedAlgorithm::words: return "int8 words";
    case QuantizedAlgorithm::pairs: return "int8 pairs";
    case QuantizedAlgorithm::bytes: return "int8 bytes";
    case QuantizedAlgorithm::tiles: return "int8 tiles";
    case QuantizedAlgorithm::winograd2: return "int8 winograd f2";
    case QuantizedAlgorithm::winograd4: return "int8 winograd f4";
  }
  throw InternalError("unknown algorithm of an int8 convolution");
}

/// Tiles of mxm pixels of one image: those at the border may hang over.
int64_t winograd_tiles(const simd::QuantizedConvSize& size, int64_t m) {
  return ((size.Ho + m - 1) / m) * ((size.Wo + m - 1) / m);
}

/// F(4x4) has fewer products where tiles of four do not waste more of the map than tiles of two; a tenth is the price
/// of its longer transforms.
QuantizedAlgorithm winograd_for(const simd::QuantizedConvSize& size) {
  const int64_t products4 = 36 * winograd_tiles(size, 4), products2 = 16 * winograd_tiles(size, 2);
  return products4 * 10 < products2 * 9 ? QuantizedAlgorithm::winograd4 : QuantizedAlgorithm::winograd2;
}

/// Whether F(4x4) pays where bytes are multiplied twice as fast as the 16-bit words that it needs, which leaves half of
/// what it saves: with many of both kinds of channels, and where few of its tiles hang over (not on maps of 14x14 or
/// 7x7). Rows, its tiles or pixels, are multiplied a dozen at a time, however few there are. Transforms that cost less
/// pay with fewer channels, and on those maps where many tiles share the weights
/// (docs/decisions/0026-int8-by-vnni-in-registers.md).
bool winograd_beats_bytes(const simd::QuantizedConvSize& size) {
  const auto products = [](int64_t rows, int64_t of_each) { return (rows + 11) / 12 * 12 * of_each; };
  const int64_t tiles = size.N * winograd_tiles(size, 4), channels = std::min(size.C, size.K);
  const int64_t direct = products(size.N * size.Ho * size.Wo, 9), winograd = products(tiles, 36);
  const bool few_hang_over = 2 * direct >= 7 * winograd;
  if (has_spare_vector_units())
    return channels >= 64 && (few_hang_over || (tiles >= 128 && 20 * direct >= 59 * winograd));
  return channels >= 128 && few_hang_over;
}

/// By sizes alone; results are the same bytes whichever is taken. AMX's tiles where there are any. Else Winograd, where
/// it pays for its transforms, and the fastest direct kind.
QuantizedAlgorithm choose(const simd::QuantizedKernels& kernels, const simd::QuantizedConvSize& size,
                          const CpuContext& context) {
  const auto can = [&](QuantizedAlgorithm algorithm) {
    return kernels.can(algorithm, size) && !left_out(context, name_of(algorithm));
  };
  const QuantizedAlgorithm winograd = winograd_for(size);
  const bool can_winograd = context.algorithms != ConvAlgorithms::direct && can(winograd);
  if (can_winograd && context.algorithms == ConvAlgorithms::winograd) return winograd;
  if (can(QuantizedAlgorithm::tiles)) return QuantizedAlgorithm::tiles;
  const bool bytes = can(QuantizedAlgorithm::bytes);
  if (can_winograd && (bytes ? winograd_beats_bytes(size) : size.C >= 16)) return winograd;
  if (bytes) return QuantizedAlgorithm::bytes;
  return can(QuantizedAlgorithm::pairs) ? QuantizedAlgorithm::pairs : QuantizedAlgorithm::words;
}

/// What is exact with any weights, where `chosen` is not with these.
QuantizedAlgorithm fallback(QuantizedAlgorithm chosen) {
  if (chosen == QuantizedAlgorithm::pairs) return QuantizedAlgorithm::words;
  return chosen == QuantizedAlgorithm::winograd4 ? QuantizedAlgorithm::winograd2 : chosen;
}

class QuantizedConvolution : public Kernel {
 public:
  QuantizedConvolution(const NodeRequest& request, const CpuContext& context)
      : kernels_(simd::isa_kernels(context.isa).quantized),
        size_(size_of_problem(request, context.threads)),
        chosen_(choose(kernels_, size_, context)),
        algorithm_(chosen_),
        constant_weights_(request.constant[1] != 0),
        packed_bytes_(kHead + align_up(std::max(kernels_.packed_bytes(chosen_, size_),
                                                kernels_.packed_bytes(fallback(chosen_), size_)))),
        scratch_bytes_(align_up(
            std::max(kernels_.scratch_bytes(chosen_, size_), kernels_.scratch_bytes(fallback(chosen_), size_)))) {
    const auto& attrs = std::get<QuantizedConv2dAttrs>(request.attributes);
    const ByteRange range = byte_range(attrs.output);
    arguments_.least = attrs.conv.relu ? 0 : range.least;
    arguments_.largest = range.largest;
    residual_ = attrs.conv.residual;
    arguments_.residual_signed = residual_ && request.in[5].type.dtype == DType::i8;
  }

  size_t scratch_bytes() const override { return scratch_bytes_ + (constant_weights_ ? 0 : packed_bytes_); }
  std::string algorithm() const override { return name_of(algorithm_); }

  /// The same for every batch and image size that choose alike.
  std::optional<Packing> packing() const override {
    if (!constant_weights_) return std::nullopt;
    return Packing{
        .input = 1, .form = fmt::format("{} of {} groups", name_of(chosen_), size_.groups), .bytes = packed_bytes_};
  }
  /// The weights decide the algorithm, so what is packed begins with its number.
  void pack(const void* input, void* packed) override {
    const auto* weights = static_cast<const int8_t*>(input);
    const QuantizedAlgorithm exact = kernels_.exact(chosen_, size_, weights) ? chosen_ : fallback(chosen_);
    auto* bytes = static_cast<std::byte*>(packed);
    std::memset(bytes, 0, kHead);
    std::memcpy(bytes, &exact, sizeof exact);
    kernels_.pack_weights(exact, size_, weights, bytes + kHead);
  }

  void run(const KernelCall& call) override {
    const auto* packed = static_cast<const std::byte*>(call.packed);
    if (!constant_weights_) {
      std::byte* own = static_cast<std::byte*>(call.scratch) + scratch_bytes_;
      pack(call.in[1], own);
      packed = own;
    }
    std::memcpy(&algorithm_, packed, sizeof algorithm_);
    simd::QuantizedConvArgs arguments = arguments_;
    arguments.x = static_cast<const uint8_t*>(call.in[0]);
    arguments.packed = packed + kHead;
    arguments.multiplier = input(call, 2);
    arguments.offset = input(call, 3);
    arguments.padding = static_cast<const uint8_t*>(call.in[4]);
    if (residual_) {
      arguments.residual = call.in[5];
      arguments.residual_multiplier = input(call, 6);
    }
    arguments.y = call.out[0];
    arguments.scratch = call.scratch;
    kernels_.convolve(algorithm_, size_, arguments);
  }

 private:
  static constexpr size_t kHead = 64;  ///< of what is packed: keeps the rest aligned

  const simd::QuantizedKernels& kernels_;
  simd::QuantizedConvSize size_;
  QuantizedAlgorithm chosen_;     ///< by sizes
  QuantizedAlgorithm algorithm_;  ///< with the weights of the last run
  bool constant_weights_;
  size_t packed_bytes_, scratch_bytes_;  ///< enough for either
  simd::QuantizedConvArgs arguments_;    ///< what does not change from call to call
  bool residual_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_quantized_conv2d(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<QuantizedConvolution>(request, context);
}

}  // namespace resnet::cpu

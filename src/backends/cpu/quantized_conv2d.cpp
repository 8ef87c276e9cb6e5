#include "ops/quantized_conv2d.h"

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

/// Results are the same bytes whichever is taken, so a rule will do: the processor's byte products where it has them,
/// which are twice as fast as pairs of words and so about as fast as Winograd with these; else Winograd.
QuantizedAlgorithm choose(const simd::QuantizedKernels& kernels, const simd::QuantizedConvSize& size,
                          ConvAlgorithms allowed) {
  const bool winograd = allowed != ConvAlgorithms::direct && kernels.can(QuantizedAlgorithm::winograd, size);
  if (winograd && allowed == ConvAlgorithms::winograd) return QuantizedAlgorithm::winograd;
  if (kernels.can(QuantizedAlgorithm::bytes, size)) return QuantizedAlgorithm::bytes;
  constexpr int64_t kFewChannels = 16;  // whose transform costs more than it saves
  return winograd && size.C >= kFewChannels ? QuantizedAlgorithm::winograd : QuantizedAlgorithm::words;
}

class QuantizedConvolution : public Kernel {
 public:
  QuantizedConvolution(const NodeRequest& request, const CpuContext& context)
      : kernels_(simd::isa_kernels(context.isa).quantized),
        size_(size_of_problem(request, context.threads)),
        algorithm_(choose(kernels_, size_, context.algorithms)),
        constant_weights_(request.constant[1] != 0),
        direct_(algorithm_ == QuantizedAlgorithm::words),
        packed_bytes_(align_up(kernels_.packed_bytes(algorithm_, size_))),
        scratch_bytes_(align_up(kernels_.scratch_bytes(algorithm_, size_))) {
    const auto& attrs = std::get<QuantizedConv2dAttrs>(request.attributes);
    const ByteRange range = byte_range(attrs.output);
    arguments_.least = attrs.conv.relu ? 0 : range.least;
    arguments_.largest = range.largest;
    residual_ = attrs.conv.residual;
    arguments_.residual_signed = residual_ && request.in[5].type.dtype == DType::i8;
    if (constant_weights_) packed_ = AlignedMemory(packed_bytes_);
  }

  size_t scratch_bytes() const override { return scratch_bytes_ + (constant_weights_ ? 0 : packed_bytes_); }
  size_t held_bytes() const override { return packed_.size(); }
  void constants_changed() override { ready_ = false; }
  std::string algorithm() const override {
    switch (algorithm_) {
      case QuantizedAlgorithm::words: return "int8 words";
      case QuantizedAlgorithm::pairs: return "int8 pairs";
      case QuantizedAlgorithm::bytes: return "int8 bytes";
      case QuantizedAlgorithm::winograd: return "int8 winograd f2";
    }
    throw InternalError("unknown algorithm of an int8 convolution");
  }

  void run(const KernelCall& call) override {
    void* packed =
        constant_weights_ ? static_cast<void*>(packed_.data()) : static_cast<std::byte*>(call.scratch) + scratch_bytes_;
    if (!constant_weights_ || !ready_) {
      const auto* weights = static_cast<const int8_t*>(call.in[1]);
      // Room is for words, which take more of it.
      if (direct_ && kernels_.can(QuantizedAlgorithm::pairs, size_))
        algorithm_ = kernels_.pairs_fit(size_, weights) ? QuantizedAlgorithm::pairs : QuantizedAlgorithm::words;
      kernels_.pack_weights(algorithm_, size_, weights, packed);
    }
    ready_ = true;
    simd::QuantizedConvArgs arguments = arguments_;
    arguments.x = static_cast<const uint8_t*>(call.in[0]);
    arguments.packed = packed;
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
  const simd::QuantizedKernels& kernels_;
  simd::QuantizedConvSize size_;
  QuantizedAlgorithm algorithm_;
  bool constant_weights_;
  bool direct_;  ///< by words, or by pairs where the weights allow it
  size_t packed_bytes_, scratch_bytes_;
  simd::QuantizedConvArgs arguments_;  ///< what does not change from call to call
  bool residual_ = false;
  AlignedMemory packed_;  ///< constant weights
  bool ready_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_quantized_conv2d(const NodeRequest& request, CpuContext& context) {
  return std::make_unique<QuantizedConvolution>(request, context);
}

}  // namespace resnet::cpu

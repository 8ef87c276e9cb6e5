#include "backends/cpu/conv2d_half.h"

#include "backends/cpu/winograd.h"

namespace resnet::cpu {
namespace {

HalfConvProblem half_problem(const ConvProblem& p, int tile, int threads) {
  return {.n = p.x[0],
          .c = p.x[1],
          .k = p.w[0],
          .h = p.x[2],
          .w = p.x[3],
          .r = p.w[2],
          .s = p.w[3],
          .stride_h = p.attrs.stride.h,
          .stride_w = p.attrs.stride.w,
          .pad_h = p.attrs.pad.h,
          .pad_w = p.attrs.pad.w,
          .ho = p.y[2],
          .wo = p.y[3],
          .tile = tile,
          .threads = threads};
}

class HalfConvolution : public Kernel {
 public:
  HalfConvolution(const ConvProblem& problem, int tile, const CpuContext& context)
      : attrs_(problem.attrs), kernels_(*context.half), problem_(half_problem(problem, tile, context.threads)) {}

  size_t scratch_bytes() const override { return kernels_.scratch_bytes(problem_); }
  /// The same for every batch and image size.
  std::optional<Packing> packing() const override {
    return Packing{.input = 1,
                   .form = fmt::format("{} blocks of {}", algorithm(), kernels_.block),
                   .bytes = kernels_.packed_weight_bytes(problem_)};
  }
  void pack(const void* weights, void* packed) override {
    kernels_.pack_weights(problem_, static_cast<const float*>(weights), packed);
  }
  std::string algorithm() const override {
    return half_convolution_name(problem_.tile) + (kernels_.native ? "" : " emulated");
  }

  void run(const KernelCall& call) override {
    kernels_.forward(problem_, {.x = input(call, 0),
                                .packed = call.packed,
                                .bias = attrs_.bias ? input(call, 2) : nullptr,
                                .residual = attrs_.residual ? input(call, attrs_.bias ? 3 : 2) : nullptr,
                                .relu = attrs_.relu,
                                .y = output(call, 0),
                                .scratch = call.scratch});
  }

 private:
  Conv2dAttrs attrs_;
  const HalfConvKernels& kernels_;
  HalfConvProblem problem_;
};

}  // namespace

std::string half_convolution_name(int tile) { return tile == 0 ? "f16 direct" : fmt::format("f16 winograd f{}", tile); }

std::string half_convolution_refusal(const ConvProblem& p, int tile, const CpuContext& context) {
  if (!context.half) return "precision f32";
  const Conv2dAttrs& a = p.attrs;
  if (p.pass != ConvPass::forward || !p.constant_weights) return "weights that change";
  if (a.groups != 1) return fmt::format("{} groups", a.groups);
  if (!(a.dilation == Size2{1, 1})) return fmt::format("dilation {}x{}", a.dilation.h, a.dilation.w);
  const Layout channels{Layout::Kind::channels, context.half->block};
  const Layout weights{Layout::Kind::weights, channels.block};
  if (!(p.x_info.layout == channels) || !(p.y_info.layout == channels) || !(p.w_info.layout == weights))
    return fmt::format("layouts {}, {}, {}", p.x_info.layout.str(), p.w_info.layout.str(), p.y_info.layout.str());
  if (p.plain_residual) return "a row-major residual";
  // Far inside what sizes in int64_t can hold.
  constexpr int64_t kMostSide = 1 << 16, kMostElements = int64_t{1} << 40;
  if (p.x[1] > kMostSide || p.w[0] > kMostSide || p.x[2] > kMostSide || p.x[3] > kMostSide || a.pad.h > kMostSide ||
      a.pad.w > kMostSide || p.x.elements() > kMostElements || p.y.elements() > kMostElements ||
      p.w.elements() > kMostElements)
    return "too large";
  if (tile == 0) return "";
  if (p.w[2] != 3 || p.w[3] != 3) return fmt::format("kernel {}x{}", p.w[2], p.w[3]);
  if (!(a.stride == Size2{1, 1})) return fmt::format("stride {}x{}", a.stride.h, a.stride.w);
  if (a.pad.h != a.pad.w) return fmt::format("pad {}x{}", a.pad.h, a.pad.w);
  const char* why = winograd_refusal({.n = p.x[0],
                                      .c = p.x[1],
                                      .k = p.w[0],
                                      .h = p.x[2],
                                      .w = p.x[3],
                                      .pad = a.pad.h,
                                      .tile = tile,
                                      .threads = context.threads});
  return why ? why : "";
}

std::unique_ptr<Kernel> make_half_convolution(const ConvProblem& problem, int tile, const CpuContext& context) {
  if (!half_convolution_refusal(problem, tile, context).empty()) return nullptr;
  return std::make_unique<HalfConvolution>(problem, tile, context);
}

}  // namespace resnet::cpu

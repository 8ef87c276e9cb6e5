#include "backends/cpu/conv2d_gemm.h"

#include <algorithm>
#include <array>

#include "backends/cpu/simd/conv2d_gemm.h"
#include "backends/cpu/simd/isa_kernels.h"

namespace resnet::cpu {
namespace {

class GemmConvolution : public Kernel {
 public:
  GemmConvolution(const ConvProblem& p, const CpuContext& context)
      : attrs_(p.attrs),
        kernels_(simd::isa_kernels(context.isa).gemm_convolution),
        sizes_{.n = p.x[0],
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
               .dilation_h = p.attrs.dilation.h,
               .dilation_w = p.attrs.dilation.w,
               .ho = p.y[2],
               .wo = p.y[3],
               .threads = context.threads} {}

  size_t scratch_bytes() const override { return kernels_.scratch_bytes(sizes_); }
  std::string algorithm() const override { return "gemm"; }
  void run(const KernelCall& call) override {
    GemmConv arguments = sizes_;
    arguments.x = input(call, 0);
    arguments.weights = input(call, 1);
    arguments.bias = attrs_.bias ? input(call, 2) : nullptr;
    arguments.residual = attrs_.residual ? input(call, attrs_.bias ? 3 : 2) : nullptr;
    arguments.relu = attrs_.relu;
    arguments.y = output(call, 0);
    arguments.scratch = call.scratch;
    kernels_.forward(arguments);
  }

 private:
  Conv2dAttrs attrs_;
  const GemmConvKernels& kernels_;
  GemmConv sizes_;
};

bool possible(const ConvProblem& p, const CpuContext& context) {
  const Layout channels{Layout::Kind::channels, context.block};
  const Layout weights{Layout::Kind::weights, context.block};
  if (p.pass != ConvPass::forward || p.attrs.groups != 1 || p.plain_residual) return false;
  if (!(p.x_info.layout == channels) || !(p.y_info.layout == channels) || !(p.w_info.layout == weights)) return false;
  // Far inside what sizes in int64_t can hold.
  constexpr int64_t kMostSide = 1 << 16, kMostElements = int64_t{1} << 40;
  const Conv2dAttrs& a = p.attrs;
  const std::array sides = {p.x[1],     p.w[0],     p.x[2],  p.x[3],  p.w[2],       p.w[3],
                            a.stride.h, a.stride.w, a.pad.h, a.pad.w, a.dilation.h, a.dilation.w};
  if (std::any_of(sides.begin(), sides.end(), [](int64_t side) { return side > kMostSide; })) return false;
  return p.x.elements() <= kMostElements && p.y.elements() <= kMostElements && p.w.elements() <= kMostElements;
}

}  // namespace

std::unique_ptr<Kernel> make_gemm_convolution(const ConvProblem& problem, const CpuContext& context) {
  if (!possible(problem, context)) return nullptr;
  return std::make_unique<GemmConvolution>(problem, context);
}

}  // namespace resnet::cpu

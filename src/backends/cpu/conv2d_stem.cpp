#include "backends/cpu/conv2d_stem.h"

#include "backends/cpu/simd/conv2d_stem.h"
#include "backends/cpu/simd/isa_kernels.h"

namespace resnet {

size_t stem_scratch_bytes(const StemWeightGrad& p) {
  const int64_t chunks = p.N < kStemChunks ? p.N : kStemChunks;
  const int64_t channels = (p.K + 15) / 16 * 16;
  const int64_t partial = channels * p.C * p.R * p.S;
  const int64_t plane = (((p.Ho - 1) * p.stride + p.R) * ((p.Wo - 1) * p.stride + p.S) + 15) / 16 * 16;
  return static_cast<size_t>(chunks * (partial + plane)) * sizeof(float);
}

namespace cpu {
namespace {

StemWeightGrad sizes_of(const ConvProblem& p, const CpuContext& context) {
  return {.N = p.x[0],
          .C = p.x[1],
          .H = p.x[2],
          .W = p.x[3],
          .K = p.w[0],
          .R = p.w[2],
          .S = p.w[3],
          .stride = p.attrs.stride.h,
          .pad = p.attrs.pad.h,
          .Ho = p.y[2],
          .Wo = p.y[3],
          .threads = context.threads};
}

}  // namespace

bool is_stem(const ConvProblem& p, const CpuContext& context) {
  const Conv2dAttrs& a = p.attrs;
  return p.pass == ConvPass::weight_grad && a.groups == 1 && a.dilation == Size2{1, 1} && a.stride.h == a.stride.w &&
         a.pad.h == a.pad.w && p.w[3] <= kStemLargestS && p.x_info.layout == Layout{} && p.w_info.layout == Layout{} &&
         p.y_info.layout == Layout{Layout::Kind::channels, context.block};
}

std::unique_ptr<Kernel> make_stem_weight_grad(const ConvProblem& p, const CpuContext& context) {
  const StemWeightGrad sizes = sizes_of(p, context);
  return std::make_unique<SimdKernel>(
      [sizes, stem_weight_grad = simd::isa_kernels(context.isa).stem_weight_grad](const KernelCall& call) {
        StemWeightGrad arguments = sizes;
        arguments.x = input(call, 0);
        arguments.dy = input(call, 1);
        arguments.dw = output(call, 0);
        arguments.scratch = call.scratch;
        stem_weight_grad(arguments);
      },
      stem_scratch_bytes(sizes), "stem");
}

}  // namespace cpu
}  // namespace resnet

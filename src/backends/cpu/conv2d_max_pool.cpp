// A convolution and the max pool behind it: one after the other, or, for a stem, our kernel that never holds the map
// between them. The faster is taken.

#include "ops/conv2d_max_pool.h"
#include "backends/cpu/conv2d_choice.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/simd/isa_kernels.h"
#include "base/align.h"
#include "ops/conv2d.h"

namespace resnet::cpu {
namespace {

/// A stem whose kernel of ours can be: how it reads and what it makes. `p.y` is the pooled map.
struct Stem {
  ConvPoolAttrs attrs;
  ValueInfo map;  ///< between the two

  /// The same of another number of images.
  Stem of_images(int64_t count) const {
    Stem other = *this;
    other.map.type.shape[0] = count;
    return other;
  }
};

StemForward sizes_of(const ConvProblem& p, const Stem& stem, const CpuContext& context) {
  const Conv2dAttrs& conv = stem.attrs.conv;
  const PoolAttrs& pool = stem.attrs.pool;
  return {.N = p.x[0],
          .C = p.x[1],
          .H = p.x[2],
          .W = p.x[3],
          .K = p.w[0],
          .R = p.w[2],
          .S = p.w[3],
          .stride = conv.stride.h,
          .pad = conv.pad.h,
          .Ho = stem.map.type.shape[2],
          .Wo = stem.map.type.shape[3],
          .pool_kernel = pool.kernel.h,
          .pool_stride = pool.stride.h,
          .pool_pad = pool.pad.h,
          .Po = p.y[2],
          .Qo = p.y[3],
          .relu = conv.relu,
          .threads = context.threads};
}

bool can_fuse(const ConvProblem& p, const Stem& stem, const CpuContext& context) {
  const Conv2dAttrs& conv = stem.attrs.conv;
  const PoolAttrs& pool = stem.attrs.pool;
  constexpr int64_t kMostRows = 64;   // of weights that meet one row of outputs
  constexpr int64_t kMostPool = 16;   // rows of the convolution that are kept
  constexpr int64_t kMostTaps = 512;  // weights of a pair of blocks stay in the first cache
  return p.constant_weights && conv.groups == 1 && conv.dilation == Size2{1, 1} && conv.stride.h == conv.stride.w &&
         conv.stride.h <= 2 && conv.pad.h == conv.pad.w && pool.kernel.h == pool.kernel.w &&
         pool.stride.h == pool.stride.w && pool.pad.h == pool.pad.w && pool.kernel.h <= kMostPool &&
         p.x[1] * p.w[2] <= kMostRows && p.x[1] * p.w[2] * p.w[3] <= kMostTaps && p.x_info.layout == Layout{} &&
         p.w_info.layout == Layout{} && p.y_info.layout == Layout{Layout::Kind::channels, context.block};
}

class FusedStem : public Kernel {
 public:
  FusedStem(const ConvProblem& p, const Stem& stem, const CpuContext& context)
      : sizes_(sizes_of(p, stem, context)),
        bias_(stem.attrs.conv.bias),
        kernels_(simd::isa_kernels(context.isa).stem_forward) {}
  size_t scratch_bytes() const override { return kernels_.scratch_bytes(sizes_); }
  std::string algorithm() const override { return "stem"; }
  std::optional<Packing> packing() const override {
    return Packing{
        .input = 1, .form = fmt::format("stem blocks of {}", kernels_.block), .bytes = kernels_.packed_bytes(sizes_)};
  }
  void pack(const void* weights, void* packed) override {
    kernels_.pack(sizes_, static_cast<const float*>(weights), static_cast<float*>(packed));
  }
  void run(const KernelCall& call) override {
    StemForward arguments = sizes_;
    arguments.x = input(call, 0);
    arguments.packed = static_cast<const float*>(call.packed);
    arguments.bias = bias_ ? input(call, 2) : nullptr;
    arguments.y = output(call, 0);
    arguments.scratch = call.scratch;
    kernels_.run(arguments);
  }

 private:
  StemForward sizes_;
  bool bias_;
  const StemForwardKernels& kernels_;
};

/// The convolution into scratch, then the pool.
class OneAfterTheOther : public Kernel {
 public:
  OneAfterTheOther(std::unique_ptr<Kernel> conv, const ConvProblem& p, const Stem& stem, const CpuContext& context)
      : conv_(std::move(conv)),
        map_bytes_(align_up(storage_bytes(stem.map.type, stem.map.layout))),
        pool_{.size = map_size(stem.map.type.shape),
              .window = pool_window(stem.attrs.pool),
              .Ho = p.y[2],
              .Wo = p.y[3],
              .threads = context.threads},
        simd_(context.simd) {}
  size_t scratch_bytes() const override { return map_bytes_ + conv_->scratch_bytes(); }
  std::string algorithm() const override { return conv_->algorithm() + ", pool"; }
  std::optional<Packing> packing() const override { return conv_->packing(); }
  void pack(const void* input, void* packed) override { conv_->pack(input, packed); }
  std::optional<double> flops() const override { return conv_->flops(); }
  size_t held_bytes() const override { return conv_->held_bytes(); }
  void constants_changed() override { conv_->constants_changed(); }
  void run(const KernelCall& call) override {
    auto* scratch = static_cast<std::byte*>(call.scratch);
    void* const map[] = {scratch};
    conv_->run({call.in, map, scratch + map_bytes_, call.packed});
    simd::MaxPool pool = pool_;
    pool.x = reinterpret_cast<const float*>(scratch);
    pool.y = output(call, 0);
    simd_.max_pool(pool);
  }

 private:
  std::unique_ptr<Kernel> conv_;
  size_t map_bytes_;
  simd::MaxPool pool_;
  const simd::SimdKernels& simd_;
};

}  // namespace

Support supports_conv2d_max_pool(const NodeRequest& request, const CpuContext& context) {
  if (Support support = supports_conv2d(request, context); !support.ok) return support;
  return is_blocked(request.out[0]) ? Support::yes() : Support::no("the pooled map is not channel-blocked");
}

std::unique_ptr<Kernel> make_conv2d_max_pool(const NodeRequest& request, CpuContext& context) {
  const auto& attrs = std::get<ConvPoolAttrs>(request.attributes);
  std::vector<TensorType> types;
  for (const ValueInfo& value : request.in) types.push_back(value.type);
  const Stem stem{attrs, {kConv2d.infer(InferCall{attrs.conv, types, request.name})[0], request.out[0].layout}};
  ConvProblem problem;
  problem.attrs = attrs.conv;
  problem.x_info = request.in[0];
  problem.w_info = request.in[1];
  problem.y_info = request.out[0];
  problem.x = problem.x_info.type.shape;
  problem.w = problem.w_info.type.shape;
  problem.y = problem.y_info.type.shape;
  problem.constant_weights = request.constant[1] != 0;

  // Calls use(request of the convolution alone) for the images of `p`.
  const auto with_conv = [&](const ConvProblem& p, const auto& use) {
    const Stem here = stem.of_images(p.x[0]);
    std::vector<ValueInfo> in(request.in.begin(), request.in.end());
    in[0] = p.x_info;
    const Attributes conv = attrs.conv;
    return use(
        NodeRequest{kConv2d, conv, in, {&here.map, 1}, request.constant, {request.used}, request.name, request.depth});
  };
  std::vector<ConvCandidate> candidates;
  if (can_fuse(problem, stem, context) && !left_out(context, "stem")) {
    candidates.push_back({"stem", false, [&](const ConvProblem& p) -> std::unique_ptr<Kernel> {
                            return std::make_unique<FusedStem>(p, stem.of_images(p.x[0]), context);
                          }});
  }
  candidates.push_back(
      {"one after the other", false, [&](const ConvProblem& p) -> std::unique_ptr<Kernel> {
         auto conv = with_conv(p, [&](const NodeRequest& of_conv) { return make_conv2d(of_conv, context); });
         return std::make_unique<OneAfterTheOther>(std::move(conv), p, stem.of_images(p.x[0]), context);
       }});
  const std::string key =
      tuning_key(context, fmt::format("conv2d_max_pool {} pool {}", problem.key(), to_string(Attributes{attrs.pool})));
  std::map<std::string, std::string> used = context.tuning.used();
  auto kernel = choose_convolution(problem, key, candidates, context.tuning, aim_of(context));
  if (!context.measure) return kernel;
  // A run that finds the answer known asks no more than this, and must note the same choices as one that measured.
  context.tuning.set_used(std::move(used));
  if (context.tuning.find(key) != "stem") {
    context.tuning.find(with_conv(problem, [&](const NodeRequest& of_conv) {
      return tuning_key(context, ConvProblem::of(of_conv, ConvPass::forward).key());
    }));
  }
  return kernel;
}

}  // namespace resnet::cpu

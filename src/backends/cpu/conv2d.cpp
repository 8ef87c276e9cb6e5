// Convolution and its gradients: the candidates (oneDNN direct, oneDNN Winograd, our matrix product, our stem's, our
// Winograd with each tile) among which conv2d_choice.cpp chooses.

#include "ops/conv2d.h"
#include "backends/cpu/conv2d_choice.h"
#include "backends/cpu/conv2d_gemm.h"
#include "backends/cpu/conv2d_half.h"
#include "backends/cpu/conv2d_stem.h"
#include "backends/cpu/winograd.h"

namespace resnet::cpu {
namespace {

/// Nodes in a row. ResNet-152's inference has about 160 and preresnet164_cifar's 220, with f32 logits that are 5e-5 of
/// the largest off at most; preresnet1001_cifar's has 1340, and 1e-4 is what there is to keep
/// (docs/decisions/0027-no-tiles-of-four-in-the-deepest-nets.md).
constexpr int64_t kDeep = 512;

}  // namespace

ConvProblem ConvProblem::of(const NodeRequest& request, ConvPass pass) {
  ConvProblem p;
  p.pass = pass;
  switch (pass) {
    case ConvPass::forward:
      p.attrs = std::get<Conv2dAttrs>(request.attributes);
      p.x_info = request.in[0];
      p.w_info = request.in[1];
      p.y_info = request.out[0];
      p.constant_weights = request.constant[1] != 0;
      p.plain_residual = p.attrs.residual && !(request.in.back().layout == p.y_info.layout);
      p.deep = p.constant_weights && request.depth > kDeep;
      break;
    case ConvPass::input_grad:
      p.attrs = std::get<Conv2dGradAttrs>(request.attributes).conv;
      p.y_info = request.in[0];
      p.w_info = request.in[1];
      p.x_info = request.out[0];
      p.constant_weights = request.constant[1] != 0;
      break;
    case ConvPass::weight_grad:
      p.attrs = std::get<Conv2dGradAttrs>(request.attributes).conv;
      p.x_info = request.in[0];
      p.y_info = request.in[1];
      p.w_info = request.out[0];
      break;
  }
  p.x = p.x_info.type.shape;
  p.w = p.w_info.type.shape;
  p.y = p.y_info.type.shape;
  return p;
}

std::string ConvProblem::key() const {
  const char* name = pass == ConvPass::forward      ? "forward"
                     : pass == ConvPass::input_grad ? "input_grad"
                                                    : "weight_grad";
  return fmt::format("{}{} {} {} {} {}->{}{}{}", name, constant_weights ? " constant" : "", x.str(), w.str(),
                     to_string(Attributes{attrs}), x_info.layout.str(), y_info.layout.str(),
                     plain_residual ? " plain residual" : "", deep ? " deep" : "");
}

namespace {

class WinogradKernel : public Kernel {
 public:
  /// packs: constant weights are transformed once and kept, up to four times as large. apart: see WinogradProblem.
  WinogradKernel(const ConvProblem& problem, const CpuContext& context, int tile, bool packs, bool apart)
      : problem_(problem),
        packs_(packs),
        kernels_(winograd_kernels(context.isa)),
        size_{.n = problem.x[0],
              .c = problem.x[1],
              .k = problem.w[0],
              .h = problem.x[2],
              .w = problem.x[3],
              .pad = problem.attrs.pad.h,
              .tile = tile,
              .threads = context.threads,
              .stride = static_cast<int>(problem.attrs.stride.h),
              .apart = apart} {}

  /// Why it cannot do the problem; empty when it can.
  static std::string refusal(const ConvProblem& p, const CpuContext& context) {
    const Conv2dAttrs& a = p.attrs;
    auto text = [](const Size2& s) { return s.h == s.w ? fmt::format("{}", s.h) : fmt::format("{}x{}", s.h, s.w); };
    if (p.w[2] != 3 || p.w[3] != 3) return fmt::format("kernel {}x{}", p.w[2], p.w[3]);
    const bool strided = p.pass == ConvPass::forward && a.stride == Size2{2, 2};
    if (!(a.stride == Size2{1, 1}) && !strided) return "stride " + text(a.stride);
    if (!(a.dilation == Size2{1, 1})) return "dilation " + text(a.dilation);
    if (a.groups != 1) return fmt::format("{} groups", a.groups);
    if (a.pad.h != a.pad.w) return "pad " + text(a.pad);
    const Layout channels{Layout::Kind::channels, winograd_kernels(context.isa).block};
    const Layout weights{Layout::Kind::weights, channels.block};
    if (!(p.x_info.layout == channels) || !(p.y_info.layout == channels) || !(p.w_info.layout == weights))
      return fmt::format("layouts {}, {}, {}", p.x_info.layout.str(), p.w_info.layout.str(), p.y_info.layout.str());
    if (p.plain_residual) return "a row-major residual";
    const char* why = winograd_refusal({.n = p.x[0],
                                        .c = p.x[1],
                                        .k = p.w[0],
                                        .h = p.x[2],
                                        .w = p.x[3],
                                        .pad = a.pad.h,
                                        .stride = static_cast<int>(a.stride.h)});
    return why ? why : "";
  }

  /// Unpacked weights never lie transformed as a whole.
  bool transforms_in_pieces() const { return kernels_.transforms_in_pieces(size_, pass()); }

  size_t scratch_bytes() const override { return kernels_.scratch_bytes(size_, pass(), packs_); }
  /// Whether every thread can have a few runs of tiles of its own.
  bool can_be_apart() const {
    const auto tiles = [&](int64_t outputs) { return (outputs + size_.tile - 1) / size_.tile; };
    constexpr int64_t kFew = 24;
    return size_.threads > 1 && problem_.y[0] * tiles(problem_.y[2]) * tiles(problem_.y[3]) >= kFew * size_.threads;
  }

  std::string algorithm() const override { return name(size_.tile, packs_ || !problem_.constant_weights, size_.apart); }
  static std::string name(int tile, bool packs, bool apart) {
    return fmt::format("winograd f{}{}{}", tile, apart ? " apart" : "", packs ? "" : " on the fly");
  }
  /// Those between the transforms, whose additions are left out.
  std::optional<double> flops() const override {
    const auto tiles = [&](int64_t outputs) { return static_cast<double>((outputs + size_.tile - 1) / size_.tile); };
    const bool backward = problem_.pass == ConvPass::input_grad;  // its outputs are x
    const Shape& y = backward ? problem_.x : problem_.y;
    const int axis = size_.stride == 1 ? size_.tile + 2 : 2 * size_.tile + 1;
    const double points = axis * axis;
    return 2 * points * static_cast<double>(size_.n * size_.c * size_.k) * tiles(y[2]) * tiles(y[3]);
  }
  /// The same for every batch and image size.
  std::optional<Packing> packing() const override {
    if (!packs_) return std::nullopt;
    return Packing{.input = 1,
                   .form = fmt::format("{} stride {} {} blocks of {}", name(size_.tile, true, false), size_.stride,
                                       pass() == WinogradPass::forward ? "forward" : "backward data", kernels_.block),
                   .bytes = kernels_.packed_weight_bytes(size_, pass())};
  }
  void pack(const void* weights, void* packed) override {
    kernels_.pack_weights(size_, pass(), static_cast<const float*>(weights), static_cast<float*>(packed));
  }

  void run(const KernelCall& call) override {
    const auto* packed = static_cast<const float*>(call.packed);
    switch (problem_.pass) {
      case ConvPass::forward: {
        const Conv2dAttrs& a = problem_.attrs;
        kernels_.forward(size_, {.x = input(call, 0),
                                 .w = input(call, 1),
                                 .packed = packed,
                                 .bias = a.bias ? input(call, 2) : nullptr,
                                 .residual = a.residual ? input(call, a.bias ? 3 : 2) : nullptr,
                                 .relu = a.relu,
                                 .y = output(call, 0),
                                 .scratch = call.scratch});
        break;
      }
      case ConvPass::input_grad:
        kernels_.backward_data(size_, {.dy = input(call, 0),
                                       .w = input(call, 1),
                                       .packed = packed,
                                       .dx = output(call, 0),
                                       .scratch = call.scratch});
        break;
      case ConvPass::weight_grad:
        kernels_.backward_weights(
            size_, {.x = input(call, 0), .dy = input(call, 1), .dw = output(call, 0), .scratch = call.scratch});
        break;
    }
  }

 private:
  WinogradPass pass() const {
    switch (problem_.pass) {
      case ConvPass::forward: return WinogradPass::forward;
      case ConvPass::input_grad: return WinogradPass::backward_data;
      case ConvPass::weight_grad: return WinogradPass::backward_weights;
    }
    throw InternalError("unknown convolution pass");
  }

  ConvProblem problem_;
  bool packs_;
  const WinogradKernels& kernels_;
  WinogradProblem size_;
};

/// A kernel with a remark on why it was taken.
class RemarkedKernel : public Kernel {
 public:
  RemarkedKernel(std::unique_ptr<Kernel> kernel, std::string remark)
      : kernel_(std::move(kernel)), remark_(std::move(remark)) {}
  size_t scratch_bytes() const override { return kernel_->scratch_bytes(); }
  std::string algorithm() const override { return fmt::format("{} ({})", kernel_->algorithm(), remark_); }
  void run(const KernelCall& call) override { kernel_->run(call); }
  std::optional<double> flops() const override { return kernel_->flops(); }
  std::optional<Packing> packing() const override { return kernel_->packing(); }
  void pack(const void* input, void* packed) override { kernel_->pack(input, packed); }
  size_t held_bytes() const override { return kernel_->held_bytes(); }
  void constants_changed() override { kernel_->constants_changed(); }

 private:
  std::unique_ptr<Kernel> kernel_;
  std::string remark_;
};

/// Those in half precision that `context.algorithms` allows; none where it is not asked for or cannot be.
std::vector<ConvCandidate> half_candidates(const ConvProblem& problem, const CpuContext& context) {
  std::vector<ConvCandidate> list;
  for (const int tile : {0, 2, 3, 4}) {
    if (!half_convolution_refusal(problem, tile, context).empty()) continue;
    if (tile != 0 && context.algorithms == ConvAlgorithms::direct) continue;
    if (left_out(context, half_convolution_name(tile))) continue;
    list.push_back({half_convolution_name(tile), tile != 0,
                    [&context, tile](const ConvProblem& p) { return make_half_convolution(p, tile, context); }});
  }
  if (context.algorithms == ConvAlgorithms::winograd && list.size() > 1) list.erase(list.begin());
  return list;
}

/// The candidates that `context.algorithms` allows.
std::vector<ConvCandidate> f32_candidates(const ConvProblem& problem, const CpuContext& context) {
  std::vector<ConvCandidate> list;
  list.push_back({"direct", false, [&context](const ConvProblem& p) {
                    return make_onednn_convolution(p, OnednnAlgorithm::direct, context);
                  }});
  if (problem.w[2] == 3 && problem.w[3] == 3 && !problem.deep) {  // its tiles are of four
    list.push_back({"onednn winograd", true, [&context](const ConvProblem& p) {
                      return make_onednn_convolution(p, OnednnAlgorithm::winograd, context);
                    }});
  }
  // `direct` is one kernel, so that no timing changes what it computes.
  if (context.algorithms != ConvAlgorithms::direct)
    list.push_back({"gemm", false, [&context](const ConvProblem& p) { return make_gemm_convolution(p, context); }});
  if (is_stem(problem, context)) {
    list.push_back({"stem", false, [&context](const ConvProblem& p) { return make_stem_weight_grad(p, context); }});
  }
  std::string refusal = WinogradKernel::refusal(problem, context);
  if (refusal.empty()) {
    for (int tile : {2, 3, 4}) {
      if (tile == 4 && problem.deep) continue;  // rounds worst
      list.push_back({WinogradKernel::name(tile, true, false), true, [&context, tile](const ConvProblem& p) {
                        return std::make_unique<WinogradKernel>(p, context, tile, p.constant_weights, false);
                      }});
      if (!problem.constant_weights) continue;
      // Small weights are kept, and threads have tiles of their own, as it is: other ways are for large ones.
      for (const auto& [packs, apart] : {std::pair{false, false}, {true, true}, {false, true}}) {
        list.push_back(
            {WinogradKernel::name(tile, packs, apart), true,
             [&context, tile, packs = packs, apart = apart](const ConvProblem& p) -> std::unique_ptr<Kernel> {
               auto kernel = std::make_unique<WinogradKernel>(p, context, tile, packs, apart);
               if (!kernel->transforms_in_pieces() || (apart && !kernel->can_be_apart())) return nullptr;
               return kernel;
             }});
      }
    }
  }
  std::erase_if(list, [&](const ConvCandidate& c) { return left_out(context, c.name); });
  if (refusal.empty() && left_out(context, WinogradKernel::name(4, true, false))) refusal = "left out";
  if (context.algorithms == ConvAlgorithms::direct) {
    std::erase_if(list, [](const ConvCandidate& c) { return c.winograd; });
  }
  if (context.algorithms == ConvAlgorithms::winograd) {
    if (refusal.empty()) std::erase_if(list, [](const ConvCandidate& c) { return !c.winograd; });
    for (ConvCandidate& candidate : list) {
      if (candidate.winograd) continue;
      candidate.make = [make = candidate.make, refusal](const ConvProblem& p) -> std::unique_ptr<Kernel> {
        auto kernel = make(p);
        if (!kernel) return nullptr;
        return std::make_unique<RemarkedKernel>(std::move(kernel), "no winograd: " + refusal);
      };
    }
  }
  return list;
}

std::vector<ConvCandidate> candidates(const ConvProblem& problem, const CpuContext& context) {
  std::vector<ConvCandidate> list = half_candidates(problem, context);
  // Where f32 is as fast it is welcome; the emulation is slow, and asked for to see what half precision does.
  if (!list.empty() && !context.half->native) return list;
  std::vector<ConvCandidate> others = f32_candidates(problem, context);
  list.insert(list.end(), std::make_move_iterator(others.begin()), std::make_move_iterator(others.end()));
  return list;
}

std::unique_ptr<Kernel> make_convolution(const NodeRequest& request, ConvPass pass, CpuContext& context) {
  const ConvProblem problem = ConvProblem::of(request, pass);
  return choose_convolution(problem, tuning_key(context, problem.key()), candidates(problem, context), context.tuning,
                            aim_of(context));
}

}  // namespace

Support supports_conv2d(const NodeRequest& request, const CpuContext&) {
  if (Support support = only_f32(request); !support.ok) return support;
  const bool weight_grad = &request.op == &kConv2dWeightGrad;
  // Only states and weight gradients lie as weights do, and only other values as images do.
  const ValueInfo& weight = weight_grad ? request.out[0] : request.in[1];
  const ValueInfo& image = request.in[0];
  if (is_blocked(weight)) return Support::no("the weight is not a state");
  if (image.layout.kind == Layout::Kind::weights) return Support::no("the image is a state");
  return Support::yes();
}

std::unique_ptr<Kernel> make_conv2d(const NodeRequest& request, CpuContext& context) {
  return make_convolution(request, ConvPass::forward, context);
}

std::unique_ptr<Kernel> make_conv2d_input_grad(const NodeRequest& request, CpuContext& context) {
  return make_convolution(request, ConvPass::input_grad, context);
}

std::unique_ptr<Kernel> make_conv2d_weight_grad(const NodeRequest& request, CpuContext& context) {
  return make_convolution(request, ConvPass::weight_grad, context);
}

}  // namespace resnet::cpu

// Convolution and its gradients: the candidates (oneDNN direct, oneDNN Winograd, our Winograd with each
// tile) and the choice between them, by measurement on this machine.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <limits>

#include "backends/cpu/conv2d_onednn.h"
#include "backends/cpu/conv2d_stem.h"
#include "backends/cpu/winograd.h"
#include "ops/conv2d.h"

namespace resnet::cpu {

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
  return fmt::format("{}{} {} {} {} {}->{}{}", name, constant_weights ? " constant" : "", x.str(), w.str(),
                     to_string(Attributes{attrs}), x_info.layout.str(), y_info.layout.str(),
                     plain_residual ? " plain residual" : "");
}

double ConvProblem::flops() const {
  return 2.0 * static_cast<double>(y.elements()) * static_cast<double>(w[1] * w[2] * w[3]);
}

namespace {

class WinogradKernel : public Kernel {
 public:
  WinogradKernel(const ConvProblem& problem, const CpuContext& context, int tile)
      : problem_(problem),
        kernels_(winograd_kernels(context.isa)),
        size_{.n = problem.x[0],
              .c = problem.x[1],
              .k = problem.w[0],
              .h = problem.x[2],
              .w = problem.x[3],
              .pad = problem.attrs.pad.h,
              .tile = tile,
              .threads = context.threads} {}

  static bool possible(const ConvProblem& p, const CpuContext& context) {
    const Conv2dAttrs& a = p.attrs;
    const bool geometry = p.w[2] == 3 && p.w[3] == 3 && a.stride == Size2{1, 1} && a.dilation == Size2{1, 1} &&
                          a.groups == 1 && a.pad.h == a.pad.w && (a.pad.h == 0 || a.pad.h == 1);
    const Layout channels{Layout::Kind::channels, winograd_kernels(context.isa).block};
    const Layout weights{Layout::Kind::weights, channels.block};
    return geometry && !p.plain_residual && p.x_info.layout == channels && p.y_info.layout == channels &&
           p.w_info.layout == weights &&
           winograd_refusal({.n = p.x[0], .c = p.x[1], .k = p.w[0], .h = p.x[2], .w = p.x[3], .pad = a.pad.h}) ==
               nullptr;
  }

  size_t scratch_bytes() const override { return kernels_.scratch_bytes(size_, pass(), problem_.constant_weights); }
  size_t held_bytes() const override { return packed_bytes_; }
  void constants_changed() override { ready_ = false; }
  std::string algorithm() const override { return fmt::format("winograd f{}", size_.tile); }

  void run(const KernelCall& call) override {
    const float* packed = nullptr;
    if (problem_.constant_weights) packed = packed_weights(input(call, 1));
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
        kernels_.backward_weights(size_, {.x = input(call, 0),
                                          .dy = input(call, 1),
                                          .dw = output(call, 0),
                                          .dbias = nullptr,
                                          .scratch = call.scratch});
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

  const float* packed_weights(const float* w) {
    if (!packed_) {
      packed_bytes_ = kernels_.packed_weight_bytes(size_, pass());
      packed_.reset(static_cast<float*>(std::aligned_alloc(64, (packed_bytes_ + 63) / 64 * 64)));
      if (!packed_)
        throw ResourceError(ExitCode::limit, "winograd: {} bytes for packed weights are not to be had", packed_bytes_);
    }
    if (!ready_) kernels_.pack_weights(size_, pass(), w, packed_.get());
    ready_ = true;
    return packed_.get();
  }

  struct Free {
    void operator()(float* p) const { std::free(p); }
  };

  ConvProblem problem_;
  const WinogradKernels& kernels_;
  WinogradProblem size_;
  std::unique_ptr<float, Free> packed_;
  size_t packed_bytes_ = 0;
  bool ready_ = false;
};

struct Candidate {
  std::string name;
  bool winograd;
  std::function<std::unique_ptr<Kernel>(const ConvProblem&)> make;
};

std::vector<Candidate> candidates(const ConvProblem& problem, const CpuContext& context) {
  std::vector<Candidate> list;
  list.push_back({"direct", false, [&context](const ConvProblem& p) {
                    return make_onednn_convolution(p, OnednnAlgorithm::direct, context);
                  }});
  if (problem.w[2] == 3 && problem.w[3] == 3) {
    list.push_back({"onednn winograd", true, [&context](const ConvProblem& p) {
                      return make_onednn_convolution(p, OnednnAlgorithm::winograd, context);
                    }});
  }
  if (is_stem(problem, context)) {
    list.push_back({"stem", false, [&context](const ConvProblem& p) { return make_stem_weight_grad(p, context); }});
  }
  if (WinogradKernel::possible(problem, context)) {
    for (int tile : {2, 3, 4}) {
      list.push_back({fmt::format("winograd f{}", tile), true, [&context, tile](const ConvProblem& p) {
                        return std::make_unique<WinogradKernel>(p, context, tile);
                      }});
    }
  }
  return list;
}

/// Aligned memory filled with small values of both signs, so that no kernel meets denormals.
struct TestBuffer {
  explicit TestBuffer(size_t bytes)
      : size((bytes + 63) / 64 * 64),
        data(static_cast<std::byte*>(std::aligned_alloc(64, std::max<size_t>(size, 64)))) {
    if (!data)
      throw ResourceError(ExitCode::limit, "choosing convolution algorithms: {} bytes are not to be had", bytes);
    float* values = reinterpret_cast<float*>(data);
    for (size_t i = 0; i < size / sizeof(float); ++i)
      values[i] = static_cast<float>(static_cast<int>(i * 2654435761u >> 24) - 128) / 256.0f;
  }
  ~TestBuffer() { std::free(data); }
  TestBuffer(const TestBuffer&) = delete;
  TestBuffer& operator=(const TestBuffer&) = delete;
  size_t size;
  std::byte* data;
};

/// The fastest of `kernels` (the index), each run in turn, by the smallest of a few timings.
size_t fastest(const std::vector<std::unique_ptr<Kernel>>& kernels, const ConvProblem& p) {
  TestBuffer x(storage_bytes(p.x_info.type, p.x_info.layout));
  TestBuffer w(storage_bytes(p.w_info.type, p.w_info.layout));
  TestBuffer y(storage_bytes(p.y_info.type, p.y_info.layout));
  TestBuffer bias(static_cast<size_t>(p.w[0]) * sizeof(float));
  TestBuffer residual(p.plain_residual ? storage_bytes(p.y_info.type, Layout{}) : 0);
  size_t scratch_bytes = 0;
  for (const auto& kernel : kernels) scratch_bytes = std::max(scratch_bytes, kernel->scratch_bytes());
  TestBuffer scratch(scratch_bytes);
  std::vector<const void*> in;
  std::vector<void*> out;
  switch (p.pass) {
    case ConvPass::forward:
      in = {x.data, w.data};
      if (p.attrs.bias) in.push_back(bias.data);
      if (p.attrs.residual) in.push_back(p.plain_residual ? residual.data : y.data);
      out = {y.data};
      break;
    case ConvPass::input_grad:
      in = {y.data, w.data};
      out = {x.data};
      break;
    case ConvPass::weight_grad:
      in = {x.data, y.data};
      out = {w.data};
      break;
  }
  const KernelCall call{in, out, scratch.data};
  std::vector<double> best(kernels.size(), std::numeric_limits<double>::infinity());
  constexpr int kRounds = 4;  // the first warms caches and code
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < kernels.size(); ++i) {
      const auto start = std::chrono::steady_clock::now();
      kernels[i]->run(call);
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (round > 0) best[i] = std::min(best[i], took.count());
    }
  }
  return static_cast<size_t>(std::min_element(best.begin(), best.end()) - best.begin());
}

/// The same problem with at most `batch` images: large batches behave alike and measure slowly.
ConvProblem with_batch(ConvProblem p, int64_t batch) {
  if (p.x[0] <= batch) return p;
  for (Shape* shape : {&p.x, &p.y, &p.x_info.type.shape, &p.y_info.type.shape}) (*shape)[0] = batch;
  return p;
}

std::unique_ptr<Kernel> make_convolution(const NodeRequest& request, ConvPass pass, CpuContext& context) {
  const ConvProblem problem = ConvProblem::of(request, pass);
  std::vector<Candidate> list = candidates(problem, context);
  if (context.algorithms == ConvAlgorithms::direct) std::erase_if(list, [](const Candidate& c) { return c.winograd; });
  if (context.algorithms == ConvAlgorithms::winograd && WinogradKernel::possible(problem, context)) {
    std::erase_if(list, [](const Candidate& c) { return !c.winograd; });
  }
  const bool is_free_choice = context.algorithms == ConvAlgorithms::automatic;
  const std::string key =
      is_free_choice
          ? problem.key()
          : fmt::format("{} {}", context.algorithms == ConvAlgorithms::direct ? "direct" : "winograd", problem.key());
  if (const auto known = context.tuning.find(key)) {
    for (const Candidate& candidate : list) {
      if (candidate.name != *known) continue;
      if (auto kernel = candidate.make(problem)) return kernel;
    }
  }
  constexpr int64_t kMeasuredBatch = 64;
  const ConvProblem measured = with_batch(problem, kMeasuredBatch);
  std::vector<std::unique_ptr<Kernel>> kernels;
  std::vector<const Candidate*> built;
  for (const Candidate& candidate : list) {
    if (auto kernel = candidate.make(measured)) {
      kernels.push_back(std::move(kernel));
      built.push_back(&candidate);
    }
  }
  if (kernels.empty()) throw InternalError(fmt::format("conv2d '{}': no algorithm for {}", request.name, key));
  const Candidate& winner = *built[kernels.size() == 1 ? 0 : fastest(kernels, measured)];
  context.tuning.remember(key, winner.name);
  kernels.clear();
  return winner.make(problem);
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

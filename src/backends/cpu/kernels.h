#pragma once
// The cpu backend's kernels: one file per op, each with a `supports` and a `make`. Shared helpers for
// writing them are here too.

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/simd/conv2d_half.h"
#include "backends/cpu/simd_kernels.h"
#include "backends/cpu/tuning_cache.h"
#include "plan/backend.h"

namespace resnet::cpu {

/// What every kernel is built with.
struct CpuContext {
  Isa isa;
  int block;  ///< channels in a block: 8 or 16
  int threads;
  ConvAlgorithms algorithms;
  std::vector<std::string> without;  ///< parts of the names of kernels that are not to be taken
  const simd::SimdKernels& simd;
  TuningCache& tuning;
  bool measure = true;                    ///< what the tuning cache does not know
  const HalfConvKernels* half = nullptr;  ///< in half precision; null: everything in f32
  bool save_memory = false;               ///< see Backend
  bool stream = false;                    ///< for a stream, see Backend; one thread
};

/// Whether the kernel `name` is one of those that are not to be taken.
inline bool left_out(const CpuContext& context, std::string_view name) {
  return std::any_of(context.without.begin(), context.without.end(),
                     [name](const std::string& part) { return name.find(part) != std::string_view::npos; });
}

/// What the tuning cache knows a problem by: another precision, fewer allowed algorithms or another aim
/// is another problem.
inline std::string tuning_key(const CpuContext& context, const std::string& problem) {
  std::string limits = !context.half ? "" : context.half->native ? "f16 " : "emulated f16 ";
  if (context.save_memory) limits = "small " + limits;
  if (context.stream) limits = "stream " + limits;
  for (const std::string& part : context.without) limits = fmt::format("without {} {}", part, limits);
  switch (context.algorithms) {
    case ConvAlgorithms::automatic: return limits + problem;
    case ConvAlgorithms::direct: return "direct " + limits + problem;
    case ConvAlgorithms::winograd: return "winograd " + limits + problem;
  }
  throw InternalError("unknown convolution algorithms");
}

using MakeKernel = std::unique_ptr<Kernel> (*)(const NodeRequest&, CpuContext&);
using SupportsNode = Support (*)(const NodeRequest&, const CpuContext&);

/// A kernel of ours that is one call of a function: most ops need no more.
class SimdKernel : public Kernel {
 public:
  using Run = std::function<void(const KernelCall&)>;
  explicit SimdKernel(Run run, size_t scratch_bytes = 0, std::string algorithm = "simd")
      : run_(std::move(run)), scratch_bytes_(scratch_bytes), algorithm_(std::move(algorithm)) {}
  size_t scratch_bytes() const override { return scratch_bytes_; }
  std::string algorithm() const override { return algorithm_; }
  void run(const KernelCall& call) override { run_(call); }

 private:
  Run run_;
  size_t scratch_bytes_;
  std::string algorithm_;
};

inline const float* input(const KernelCall& call, size_t i) { return static_cast<const float*>(call.in[i]); }
inline float* output(const KernelCall& call, size_t i) { return static_cast<float*>(call.out[i]); }

/// N, C, H, W of a value of rank 4; [N,C] is a map of one pixel.
inline simd::MapSize map_size(const Shape& s) {
  return s.rank() == 2 ? simd::MapSize{s[0], s[1], 1, 1} : simd::MapSize{s[0], s[1], s[2], s[3]};
}

inline simd::PoolWindow pool_window(const PoolAttrs& a) {
  return {a.kernel.h, a.kernel.w, a.stride.h, a.stride.w, a.pad.h, a.pad.w};
}

inline bool is_blocked(const ValueInfo& value) { return value.layout.kind == Layout::Kind::channels; }

/// Everything but f64: an op's integers (labels, the index of max_pool) follow from its shape rule.
Support only_f32(const NodeRequest& request);
/// only_f32, and all float values of rank 4 blocked.
Support only_blocked_f32(const NodeRequest& request);

// conv2d.cpp
Support supports_conv2d(const NodeRequest&, const CpuContext&);
std::unique_ptr<Kernel> make_conv2d(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_conv2d_input_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_conv2d_weight_grad(const NodeRequest&, CpuContext&);
// conv2d_max_pool.cpp
Support supports_conv2d_max_pool(const NodeRequest&, const CpuContext&);
std::unique_ptr<Kernel> make_conv2d_max_pool(const NodeRequest&, CpuContext&);
// batch_norm.cpp
Support supports_batch_norm(const NodeRequest&, const CpuContext&);
std::unique_ptr<Kernel> make_batch_norm(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_batch_norm_inference(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_batch_norm_grad(const NodeRequest&, CpuContext&);
// relu.cpp, add.cpp
std::unique_ptr<Kernel> make_relu(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_relu_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_add(const NodeRequest&, CpuContext&);
// sigmoid.cpp, scale.cpp, channel_conv.cpp
std::unique_ptr<Kernel> make_sigmoid(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_sigmoid_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_scale(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_scale_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_channel_conv(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_channel_conv_weight_grad(const NodeRequest&, CpuContext&);
// max_pool.cpp, avg_pool.cpp, global_avg_pool.cpp, blur_pool.cpp
std::unique_ptr<Kernel> make_max_pool(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_max_pool_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_avg_pool(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_avg_pool_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_global_avg_pool(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_global_avg_pool_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_blur_pool(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_blur_pool_grad(const NodeRequest&, CpuContext&);
// pad_channels.cpp, l2_norm.cpp
std::unique_ptr<Kernel> make_pad_channels(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_slice_channels(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_l2_norm(const NodeRequest&, CpuContext&);
// quantized_conv2d.cpp, quantize.cpp, quantized_pool.cpp
Support supports_quantized(const NodeRequest&, const CpuContext&);
std::unique_ptr<Kernel> make_quantized_conv2d(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_quantize(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_dequantize(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_quantized_max_pool(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_quantized_global_avg_pool(const NodeRequest&, CpuContext&);
// reshape.cpp, linear.cpp, channel_sum.cpp
std::unique_ptr<Kernel> make_reshape(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_linear(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_linear_input_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_linear_weight_grad(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_channel_sum(const NodeRequest&, CpuContext&);
// softmax_cross_entropy.cpp
std::unique_ptr<Kernel> make_softmax_cross_entropy(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_softmax_cross_entropy_grad(const NodeRequest&, CpuContext&);
// sgd_update.cpp, running_average.cpp, fill.cpp
std::unique_ptr<Kernel> make_sgd_update(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_running_average(const NodeRequest&, CpuContext&);
std::unique_ptr<Kernel> make_fill(const NodeRequest&, CpuContext&);

}  // namespace resnet::cpu

#include "backends/cpu/cpu_backend.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <set>
#include <sstream>

#include "backends/cpu/crowding.h"
#include "backends/cpu/kernels.h"
#include "backends/cpu/onednn.h"
#include "backends/cpu/simd/isa_kernels.h"
#include "ops/add.h"
#include "ops/avg_pool.h"
#include "ops/batch_norm.h"
#include "ops/blur_pool.h"
#include "ops/channel_conv.h"
#include "ops/channel_sum.h"
#include "ops/conv2d.h"
#include "ops/conv2d_max_pool.h"
#include "ops/fill.h"
#include "ops/global_avg_pool.h"
#include "ops/l2_norm.h"
#include "ops/linear.h"
#include "ops/max_pool.h"
#include "ops/pad_channels.h"
#include "ops/quantize.h"
#include "ops/quantized_conv2d.h"
#include "ops/quantized_pool.h"
#include "ops/relu.h"
#include "ops/reshape.h"
#include "ops/running_average.h"
#include "ops/scale.h"
#include "ops/sgd_update.h"
#include "ops/sigmoid.h"
#include "ops/softmax_cross_entropy.h"

namespace resnet {
namespace cpu {
namespace {

/// The processor's name as the kernel tells it.
std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("model name", 0) == 0 || line.rfind("cpu model", 0) == 0)
      return line.substr(std::min(line.find_first_not_of(" \t", line.find(':') + 1), line.size()));
  }
  return "unknown processor";
}

/// The kernels for half precision, which --precision f16 asks for.
const HalfConvKernels& half_kernels(Isa isa) {
  const char* text = std::getenv("RESNET_F16");
  const std::string value = text ? text : "";
  if (value == "emulate") return simd::isa_kernels(isa).half_convolution;
  if (!value.empty()) throw UserError("environment RESNET_F16: '{}'; expected emulate", escape_control(value));
  if (const HalfConvKernels* native = simd::native_half_convolution(isa)) return *native;
  throw UserError(
      "--precision: f16 on {} with instruction set {}; expected a processor with AVX512-FP16 (avx512_fp16 in "
      "/proc/cpuinfo), and RESNET_MAX_ISA not below avx512fp16; take f32, or for its accuracy alone "
      "RESNET_F16=emulate, which is slow",
      processor_name(), isa_name(isa));
}

bool all_blocked(const NodeRequest& request) {
  auto blocked = [](const ValueInfo& value) { return value.type.shape.rank() != 4 || is_blocked(value); };
  for (const ValueInfo& value : request.in) {
    if (!blocked(value)) return false;
  }
  for (const ValueInfo& value : request.out) {
    if (!blocked(value)) return false;
  }
  return true;
}

}  // namespace

Support only_f32(const NodeRequest& request) {
  for (const auto& values : {request.in, request.out}) {
    for (const ValueInfo& value : values) {
      if (value.type.dtype == DType::f64) return Support::no(fmt::format("dtype f64; {} accepts f32", request.op.name));
    }
  }
  return Support::yes();
}

Support only_blocked_f32(const NodeRequest& request) {
  if (Support support = only_f32(request); !support.ok) return support;
  if (request.in[0].type.shape.rank() != 4) {
    return Support::no(fmt::format("rank {}; {} accepts [N,C,H,W]", request.in[0].type.shape.rank(), request.op.name));
  }
  if (!all_blocked(request)) return Support::no("a value of rank 4 is not channel-blocked");
  return Support::yes();
}

namespace {

template <Support (*check_request)(const NodeRequest&)>
Support adapt(const NodeRequest& request, const CpuContext&) {
  return check_request(request);
}

Support supports_elementwise(const NodeRequest& request, const CpuContext&) {
  if (Support support = only_f32(request); !support.ok) return support;
  for (const ValueInfo& value : request.in) {
    if (!(value.layout == request.out[0].layout)) return Support::no("operands differ in layout");
  }
  return Support::yes();
}

/// The padding lanes of a weight would become one half.
Support supports_sigmoid(const NodeRequest& request, const CpuContext& context) {
  const Layout& layout = request.in[0].layout;
  if (layout.kind == Layout::Kind::weights) return Support::no(fmt::format("a weight is laid out as {}", layout.str()));
  return supports_elementwise(request, context);
}

Support supports_reshape(const NodeRequest& request, const CpuContext&) {
  for (const ValueInfo* value : {&request.in[0], &request.out[0]}) {
    if (value->layout.kind == Layout::Kind::weights) {
      return Support::no(fmt::format("a weight is laid out as {}", value->layout.str()));
    }
    if (is_blocked(*value) && value->type.dtype != DType::f32) {
      return Support::no(
          fmt::format("dtype {} of rank 4; of that rank reshape accepts f32", name_of(value->type.dtype)));
    }
  }
  if (is_blocked(request.in[0]) && is_blocked(request.out[0])) return Support::no("both sides have rank 4");
  return only_f32(request);
}

Support supports_channel_sum(const NodeRequest& request, const CpuContext&) {
  if (request.in[0].type.shape.rank() == 4 && !is_blocked(request.in[0])) return Support::no("not channel-blocked");
  if (request.in[0].type.shape.rank() != 4 && request.in[0].type.shape.rank() != 2)
    return Support::no("rank is neither 2 nor 4");
  return only_f32(request);
}

/// The parameter, its gradient and its buffer are walked together.
Support supports_sgd_update(const NodeRequest& request, const CpuContext&) {
  for (const size_t i : {size_t{1}, size_t{4}}) {
    if (i < request.in.size() && !(request.in[i].layout == request.in[0].layout)) {
      return Support::no(fmt::format("the parameter is laid out as {}, {} as {}", request.in[0].layout.str(),
                                     i == 1 ? "its gradient" : "its buffer", request.in[i].layout.str()));
    }
  }
  return only_f32(request);
}

/// The state and what it takes in are walked together.
Support supports_running_average(const NodeRequest& request, const CpuContext&) {
  if (!(request.in[1].layout == request.in[0].layout)) {
    return Support::no(fmt::format("the average is laid out as {}, the batch's as {}", request.in[0].layout.str(),
                                   request.in[1].layout.str()));
  }
  return only_f32(request);
}

Support supports_fill(const NodeRequest& request, const CpuContext&) {
  const auto& attrs = std::get<FillAttrs>(request.attributes);
  const Layout& layout = request.out[0].layout;
  const bool padded = storage_elements(attrs.type.shape, layout) != attrs.type.shape.elements();
  if (padded && attrs.value != 0) return Support::no("a padded layout can be filled with zero only");
  if (attrs.type.dtype == DType::f32) return Support::yes();
  return Support::no(fmt::format("dtype {}; fill accepts f32", name_of(attrs.type.dtype)));
}

struct Entry {
  const OpDef* op;
  SupportsNode supports;
  MakeKernel make;
};

constexpr SupportsNode kF32 = adapt<only_f32>;
constexpr SupportsNode kBlocked = adapt<only_blocked_f32>;

const Entry kTable[] = {
    {&kConv2d, supports_conv2d, make_conv2d},
    {&kConv2dInputGrad, supports_conv2d, make_conv2d_input_grad},
    {&kConv2dWeightGrad, supports_conv2d, make_conv2d_weight_grad},
    {&kConv2dMaxPool, supports_conv2d_max_pool, make_conv2d_max_pool},
    {&kBatchNorm, supports_batch_norm, make_batch_norm},
    {&kBatchNormInference, supports_batch_norm, make_batch_norm_inference},
    {&kBatchNormGrad, supports_batch_norm, make_batch_norm_grad},
    {&kRelu, supports_elementwise, make_relu},
    {&kReluGrad, supports_elementwise, make_relu_grad},
    {&kAdd, supports_elementwise, make_add},
    {&kSigmoid, supports_sigmoid, make_sigmoid},
    {&kSigmoidGrad, supports_elementwise, make_sigmoid_grad},
    {&kScale, kBlocked, make_scale},
    {&kScaleGrad, kBlocked, make_scale_grad},
    {&kChannelConv, kBlocked, make_channel_conv},
    {&kChannelConvWeightGrad, kBlocked, make_channel_conv_weight_grad},
    {&kMaxPool, kBlocked, make_max_pool},
    {&kMaxPoolGrad, kBlocked, make_max_pool_grad},
    {&kAvgPool, kBlocked, make_avg_pool},
    {&kAvgPoolGrad, kBlocked, make_avg_pool_grad},
    {&kGlobalAvgPool, kBlocked, make_global_avg_pool},
    {&kGlobalAvgPoolGrad, kBlocked, make_global_avg_pool_grad},
    {&kBlurPool, kBlocked, make_blur_pool},
    {&kBlurPoolGrad, kBlocked, make_blur_pool_grad},
    {&kPadChannels, kBlocked, make_pad_channels},
    {&kSliceChannels, kBlocked, make_slice_channels},
    {&kQuantizedConv2d, supports_quantized, make_quantized_conv2d},
    {&kQuantize, supports_quantized, make_quantize},
    {&kDequantize, supports_quantized, make_dequantize},
    {&kQuantizedMaxPool, supports_quantized, make_quantized_max_pool},
    {&kQuantizedGlobalAvgPool, supports_quantized, make_quantized_global_avg_pool},
    {&kL2Norm, kF32, make_l2_norm},
    {&kReshape, supports_reshape, make_reshape},
    {&kLinear, kF32, make_linear},
    {&kLinearInputGrad, kF32, make_linear_input_grad},
    {&kLinearWeightGrad, kF32, make_linear_weight_grad},
    {&kChannelSum, supports_channel_sum, make_channel_sum},
    {&kSoftmaxCrossEntropy, kF32, make_softmax_cross_entropy},
    {&kSoftmaxCrossEntropyGrad, kF32, make_softmax_cross_entropy_grad},
    {&kSgdUpdate, supports_sgd_update, make_sgd_update},
    {&kRunningAverage, supports_running_average, make_running_average},
    {&kFill, supports_fill, make_fill},
};

const Entry* find_entry(const OpDef& op) {
  for (const Entry& entry : kTable) {
    if (entry.op == &op) return &entry;
  }
  return nullptr;
}

/// 8-bit numbers, not the index that max_pool makes for its gradient.
bool holds_quantized(const TensorType& type, const ValueRole& role) {
  if (type.dtype == DType::i8) return true;
  return type.dtype == DType::u8 && role.producer != &kMaxPool &&
         !(role.producer == nullptr &&
           std::find(role.readers.begin(), role.readers.end(), &kMaxPoolGrad) != role.readers.end());
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options)
      : isa_(detected_isa()),
        identity_(describe_machine(isa_, options.threads)),
        tuning_(identity_),
        context_{isa_,
                 channel_block(isa_),
                 options.threads,
                 options.algorithms,
                 options.without,
                 simd::simd_kernels(isa_),
                 tuning_,
                 options.measure,
                 options.half ? &half_kernels(isa_) : nullptr},
        stream_context_(context_),
        crowd_(options.threads) {
    stream_context_.threads = 1;
    stream_context_.stream = true;
  }

  std::string name() const override { return "cpu"; }
  std::string identity() const override {
    std::string limits = !context_.half ? "" : context_.half->native ? ", f16" : ", emulated f16";
    if (!context_.without.empty()) limits += fmt::format(", without {}", fmt::join(context_.without, ", "));
    switch (context_.algorithms) {
      case ConvAlgorithms::automatic: return identity_ + limits;
      case ConvAlgorithms::direct: return identity_ + ", direct convolutions" + limits;
      case ConvAlgorithms::winograd: return identity_ + ", winograd convolutions" + limits;
    }
    throw InternalError("unknown convolution algorithms");
  }

  Support supports(const NodeRequest& request) const override {
    const Entry* entry = find_entry(request.op);
    if (!entry) return Support::no(fmt::format("the cpu backend has no kernel for {}", request.op.name));
    return entry->supports(request, context_);
  }

  Layout layout(const TensorType& type, const ValueRole& role) const override {
    if (type.shape.rank() != 4) return {};
    if (holds_quantized(type, role)) {  // channels last; weights as they are given
      if (role.kind == NodeKind::state) return {};
      return {Layout::Kind::channels, static_cast<int>(type.shape[1])};
    }
    const bool is_weight = role.kind == NodeKind::state || role.producer == &kConv2dWeightGrad;
    if (is_weight) {
      // Few input channels (the stem) would mostly be padding.
      return type.shape[1] >= context_.block ? Layout{Layout::Kind::weights, context_.block} : Layout{};
    }
    const bool image = role.kind == NodeKind::input && type.shape[1] < context_.block &&
                       std::all_of(role.readers.begin(), role.readers.end(), [](const OpDef* op) {
                         return op == &kConv2d || op == &kConv2dMaxPool || op == &kConv2dWeightGrad ||
                                op == &kReshape || op == &kQuantize;
                       });
    return image ? Layout{} : Layout{Layout::Kind::channels, context_.block};
  }

  std::unique_ptr<Kernel> prepare(const NodeRequest& request) override {
    CpuContext& context = for_stream_ ? stream_context_ : context_;
    use_threads(context.threads);
    const Entry* entry = find_entry(request.op);
    check(entry != nullptr, "cpu backend: prepare without supports");
    return entry->make(request, context);
  }

  int streams() const override { return context_.threads; }
  void for_stream(bool on) override { for_stream_ = on; }
  void run_streams(int count, const std::function<void(int)>& run) override {
    check(count >= 1 && count <= streams(), "cpu backend: other than one stream to as many as threads");
    before_run();
    std::exception_ptr error;
#pragma omp parallel num_threads(count)
    {
      const int given = omp_get_num_threads();
      use_threads(1);  // oneDNN's primitives look for it
      try {
        require_threads(given, count);  // another caller's region may have taken some since before_run()
        run(omp_get_thread_num());
      } catch (...) {
#pragma omp critical(resnet_stream_error)
        if (!error) error = std::current_exception();
      }
    }
    if (error) std::rethrow_exception(error);
  }

  void before_run() override {
    crowd_.look();
    require_team(context_.threads);
  }

  std::map<std::string, std::string> choices() const override { return tuning_.used(); }
  void adopt(const std::map<std::string, std::string>& choices) override { tuning_.adopt(choices); }
  void save_memory(bool on) override { context_.save_memory = stream_context_.save_memory = on; }
  bool measures() const override { return context_.measure; }
  std::optional<std::string> recall(const std::string& problem) const override {
    return context_.measure ? tuning_.find(tuning_key(context_, problem)) : std::nullopt;
  }
  void remember(const std::string& problem, const std::string& choice) override {
    if (context_.measure) tuning_.remember(tuning_key(context_, problem), choice);
  }
  std::vector<std::string> take_warnings() override { return tuning_.take_warnings(); }

 private:
  static std::string describe_machine(Isa isa, int threads) {
    const dnnl_version_t* version = dnnl_version();
    // oneDNN's instruction set is its own: ONEDNN_MAX_CPU_ISA narrows it.
    return fmt::format("{} {} {} threads onednn {}.{}.{} isa {:x} kernels 13", processor_name(), isa_name(isa), threads,
                       version->major, version->minor, version->patch,
                       static_cast<unsigned>(dnnl_get_effective_cpu_isa()));
  }

  Isa isa_;
  std::string identity_;
  TuningCache tuning_;
  CpuContext context_, stream_context_;
  bool for_stream_ = false;
  CrowdWatch crowd_;
};

}  // namespace
}  // namespace cpu

std::unique_ptr<Backend> make_cpu_backend(CpuBackendOptions options) {
  check(options.threads >= 1, "make_cpu_backend: threads < 1");
  options.threads = std::min(options.threads, omp_get_thread_limit());  // OMP_THREAD_LIMIT
  return std::make_unique<cpu::CpuBackend>(options);
}

ConvAlgorithms conv_algorithms_from_environment() {
  const char* text = std::getenv("RESNET_CONV_ALGORITHM");
  const std::string value = text ? text : "auto";
  if (value == "auto" || value.empty()) return ConvAlgorithms::automatic;
  if (value == "direct") return ConvAlgorithms::direct;
  if (value == "winograd") return ConvAlgorithms::winograd;
  throw UserError("environment RESNET_CONV_ALGORITHM: '{}'; expected auto, direct or winograd", escape_control(value));
}

std::vector<std::string> conv_without_from_environment() {
  // What `direct`, `f16 direct` and `int8 words` can do others can, too; they stay.
  constexpr std::array<std::string_view, 10> kFamilies = {"gemm",       "winograd",  "onednn winograd", "on the fly",
                                                          "apart",      "stem",      "int8 winograd",   "int8 pairs",
                                                          "int8 bytes", "int8 tiles"};
  const char* text = std::getenv("RESNET_CONV_WITHOUT");
  std::set<std::string> names;
  std::istringstream list(text ? text : "");
  for (std::string name; std::getline(list, name, ',');) {
    name.erase(0, std::min(name.find_first_not_of(' '), name.size()));
    name.erase(name.find_last_not_of(' ') + 1);
    if (std::find(kFamilies.begin(), kFamilies.end(), name) == kFamilies.end()) {
      throw UserError("environment RESNET_CONV_WITHOUT: '{}'; expected some of {}, separated by commas",
                      escape_control(name), fmt::join(kFamilies, ", "));
    }
    names.insert(name);
  }
  return {names.begin(), names.end()};
}

}  // namespace resnet

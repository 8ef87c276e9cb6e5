#pragma once
// Our own f32 kernels of everything but convolution, as raw-pointer functions compiled once per
// instruction set and chosen at run time.
//
// Layouts. "Blocked" is nChw{B}c: [N][ceil(C/B)][H*W][B] floats, B = 8 or 16; the channels that pad
// the last block must be zero on input and are exactly zero on output. Vectors per channel are plain
// [C], never padded. "Plain" is row-major NCHW.
//
// Rules for every kernel. Nothing is allocated: where a struct has `scratch`, the caller gives
// *_scratch_bytes(...) bytes aligned to 64. Other buffers need no more than their element's
// alignment (64 is fastest). Pointers may alias only where said. `threads` is the number of OpenMP
// threads; results do not depend on it, bit for bit: sums are taken per image and channel, and
// added in a fixed order in double. Arguments are not checked.

#include <cstddef>
#include <cstdint>

#include "backends/cpu/simd/isa.h"

namespace resnet::simd {

/// Logical size of a blocked tensor; C is the true channel count.
struct MapSize {
  int64_t N = 0, C = 0, H = 0, W = 0;
};

/// y = act((x - mean) / sqrt(variance + eps) * gamma + beta [+ residual]). y may be x or residual.
struct BatchNormApply {
  MapSize size = {};
  const float* x = nullptr;
  const float* mean = nullptr;
  const float* variance = nullptr;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  const float* residual = nullptr;  ///< blocked, or null
  float* y = nullptr;
  float eps = 1e-5f;
  bool relu = false;
  void* scratch = nullptr;  ///< batch_norm_scratch_bytes
  int threads = 1;
};

/// BatchNormApply with the mean and biased variance of every channel over N, H, W, which are outputs here. Channel
/// blocks whose batch fits the cache are read from memory once. The variance has no cancellation: squares are summed
/// about the mean of each run of 64 pixels. y may be x or residual.
struct BatchNormTraining {
  MapSize size = {};
  const float* x = nullptr;
  const float* gamma = nullptr;
  const float* beta = nullptr;
  const float* residual = nullptr;  ///< blocked, or null
  float* mean = nullptr;            ///< [C], out
  float* variance = nullptr;        ///< [C], out, biased
  float* y = nullptr;
  float eps = 1e-5f;
  bool relu = false;
  void* scratch = nullptr;  ///< batch_norm_scratch_bytes
  int threads = 1;
};

/// Gradient of BatchNormApply with g = dy, or dy where y > 0 if y is given (relu).
///   dgamma = sum g * xhat, dbeta = sum g, dresidual = g
///   dx = gamma / sqrt(variance + eps) * (g - mean(g) - xhat * mean(g * xhat))   when training
///   dx = gamma / sqrt(variance + eps) * g                                       otherwise
/// dx may be dy, or dresidual may be dy, not both; otherwise no output may overlap dy, x or y.
struct BatchNormBackward {
  MapSize size = {};
  const float* dy = nullptr;
  const float* x = nullptr;
  const float* y = nullptr;  ///< the forward's output if it had a relu, else null
  const float* mean = nullptr;
  const float* variance = nullptr;
  const float* gamma = nullptr;
  float* dx = nullptr;         ///< null: only the parameters' gradients (and dresidual)
  float* dgamma = nullptr;     ///< [C]
  float* dbeta = nullptr;      ///< [C]
  float* dresidual = nullptr;  ///< or null
  float eps = 1e-5f;
  bool training = true;
  void* scratch = nullptr;  ///< batch_norm_scratch_bytes
  int threads = 1;
};

/// Flat, over n floats; any alignment. relu: y = max(a, 0), NaN stays NaN, b unused. relu_grad: y = a where b > 0, else
/// 0 (a = dy, b = the forward's output). add: y = a + b. sigmoid: y = 1 / (1 + exp(-a)), b unused, also of zeros that
/// pad a block. sigmoid_grad: y = a * b * (1 - b). y may be a or b.
struct Elementwise {
  const float* a = nullptr;
  const float* b = nullptr;
  float* y = nullptr;
  int64_t n = 0;
  int threads = 1;
};

/// y = x * s, s of each map (blocked [N,C,1,1]) or of each image (plain [N]). y may be x.
struct Scale {
  MapSize size = {};
  const float* x = nullptr;
  const float* s = nullptr;
  bool per_image = false;
  float* y = nullptr;
  int threads = 1;
};

/// ds = dy * x summed over the pixels of each map, or over each image.
struct ScaleBackward {
  MapSize size = {};
  const float* dy = nullptr;
  const float* x = nullptr;
  bool per_image = false;
  float* ds = nullptr;
  int threads = 1;
};

/// sum[C] of a blocked tensor over N, H, W (a bias's gradient).
struct ChannelSum {
  MapSize size = {};
  const float* x = nullptr;
  float* sum = nullptr;     ///< [C]
  void* scratch = nullptr;  ///< channel_sum_scratch_bytes
  int threads = 1;
};

/// sum[columns] of a plain [rows, columns] matrix over its rows.
struct ColumnSum {
  const float* x = nullptr;
  float* sum = nullptr;
  int64_t rows = 0, columns = 0;
  int threads = 1;
};

/// How L2Norm's tensor lies: row-major; blocked; or as weights, OIhw{B}i{B}o.
enum class Storage { plain, maps, filters };

/// Elements of a row-major tensor in one partial sum of L2Norm.
constexpr int64_t kL2NormRun = 16384;

/// Root of the sum of squares of a tensor's own elements (whatever lies in the lanes that pad it), squared, added and
/// rooted in double: the squares of small gradients have no f32 to lie in.
struct L2Norm {
  Storage storage = Storage::plain;
  MapSize size = {};  ///< filters: N is O and C is I; plain: the product counts
  const float* x = nullptr;
  float* norm = nullptr;    ///< scalar
  void* scratch = nullptr;  ///< l2_norm_scratch_bytes
  int threads = 1;
};

/// Window of a pooling. Needs padding < kernel, so that no window lies in the padding alone.
struct PoolWindow {
  int64_t kernel_h = 1, kernel_w = 1;
  int64_t stride_h = 1, stride_w = 1;
  int64_t padding_h = 0, padding_w = 0;
};

/// Maximum over windows, the padding being -inf. The first maximum in row-major order wins; a NaN
/// beats everything (the last NaN, as in PyTorch). index, if not null, receives r * kernel_w + s
/// of the winner, in y's blocked layout with u8 elements; it needs kernel_h * kernel_w <= 256.
struct MaxPool {
  MapSize size = {};  ///< of x
  PoolWindow window = {};
  int64_t Ho = 0, Wo = 0;
  const float* x = nullptr;
  float* y = nullptr;
  uint8_t* index = nullptr;  ///< or null (inference)
  int threads = 1;
};

struct MaxPoolBackward {
  MapSize size = {};  ///< of dx
  PoolWindow window = {};
  int64_t Ho = 0, Wo = 0;
  const float* dy = nullptr;
  const uint8_t* index = nullptr;
  float* dx = nullptr;
  int threads = 1;
};

/// Average over windows (PyTorch's, either ceil_mode: Ho and Wo say which). count_padding divides by the part of the
/// window inside the padded map, otherwise by the part inside the map. `x` is the gradient dy and `y` is dx for
/// avg_pool_backward; size is always the larger map's (x of the forward). The global forms use the window of the whole
/// map: window, Ho, Wo and count_padding are unused.
struct AvgPool {
  MapSize size = {};
  PoolWindow window = {};
  int64_t Ho = 0, Wo = 0;
  const float* x = nullptr;
  float* y = nullptr;
  bool count_padding = true;
  int threads = 1;
};

/// [1, 2, 1] / 4 along both axes, borders mirrored, at every stride-th pixel: see ops/blur_pool.h. Needs H and W of 2
/// or more. For blur_pool_backward `x` is dy and `y` is dx; size is always the larger map's.
struct BlurPool {
  MapSize size = {};
  int64_t stride_h = 1, stride_w = 1;
  int64_t Ho = 0, Wo = 0;
  const float* x = nullptr;
  float* y = nullptr;
  int threads = 1;
};

/// Mean over rows of -(1 - s) log p[label] - s / classes * sum log p, s = label_smoothing.
struct SoftmaxCrossEntropy {
  int64_t rows = 0, classes = 0;
  const float* logits = nullptr;    ///< plain [rows, classes]
  const int32_t* labels = nullptr;  ///< [rows], each in [0, classes): checked by the caller
  float label_smoothing = 0;
  float* loss = nullptr;           ///< scalar
  float* probabilities = nullptr;  ///< plain [rows, classes]; may be logits
  float* correct = nullptr;        ///< scalar: rows whose first largest logit is the label
  void* scratch = nullptr;         ///< softmax_cross_entropy_scratch_bytes
  int threads = 1;
};

/// dlogits = (p - target) * dloss / rows; dlogits may be probabilities.
struct SoftmaxCrossEntropyBackward {
  int64_t rows = 0, classes = 0;
  const float* probabilities = nullptr;
  const int32_t* labels = nullptr;
  const float* dloss = nullptr;  ///< scalar
  float label_smoothing = 0;
  float* dlogits = nullptr;
  int threads = 1;
};

/// PyTorch's SGD, in place: g += weight_decay * p; m = momentum * m + g; p -= lr * (nesterov ? g + momentum * m : m).
/// `buffer` may be null when momentum is 0. With `guard`, nothing is written unless *guard is finite.
struct SgdUpdate {
  float* p = nullptr;
  const float* g = nullptr;
  float* buffer = nullptr;
  const float* guard = nullptr;
  int64_t n = 0;
  float lr = 0, momentum = 0, weight_decay = 0;
  bool nesterov = false;
  int threads = 1;
};

/// running = (1 - momentum) * running + momentum * factor * batch (factor n / (n - 1) makes a biased variance
/// unbiased). With `guard`, nothing is written unless *guard is finite.
struct RunningAverage {
  float* running = nullptr;
  const float* batch = nullptr;
  const float* guard = nullptr;
  int64_t n = 0;
  float momentum = 0.1f;
  float factor = 1;
};

/// y[n][k] = x[n][k + offset] where x has that channel, 0 elsewhere, for the `channels` channels of y: a padding with
/// zeros when offset < 0, a slice when it is above. Both blocked, equal in N, H and W. No aliasing.
struct ChannelShift {
  MapSize size = {};  ///< of x
  int64_t channels = 0;
  int64_t offset = 0;
  const float* x = nullptr;
  float* y = nullptr;
  int threads = 1;
};

/// Between plain NCHW and blocked. Plain [N, C*H*W] (flatten) has the same bytes as plain NCHW. No aliasing.
struct ActivationLayout {
  MapSize size = {};
  const float* from = nullptr;
  float* to = nullptr;
  int threads = 1;
};

/// Between plain OIHW and OIhw{B}i{B}o: [ceil(O/B)][ceil(I/B)][H*W][B of I][B of O], padded with zeros. No aliasing.
struct WeightLayout {
  int64_t O = 0, I = 0, H = 0, W = 0;
  const float* from = nullptr;
  float* to = nullptr;
  int threads = 1;
};

/// Scratch of the batch_norm kernels, for any block width.
size_t batch_norm_scratch_bytes(const MapSize& size);
size_t channel_sum_scratch_bytes(const MapSize& size);
size_t softmax_cross_entropy_scratch_bytes(int64_t rows);
size_t l2_norm_scratch_bytes(Storage storage, const MapSize& size);

/// The kernels of one instruction set and block width.
struct SimdKernels {
  int64_t block;  ///< B: channels in a block
  void (*batch_norm_apply)(const BatchNormApply&);
  void (*batch_norm_training)(const BatchNormTraining&);
  void (*batch_norm_backward)(const BatchNormBackward&);
  void (*relu)(const Elementwise&);
  void (*relu_grad)(const Elementwise&);
  void (*add)(const Elementwise&);
  void (*sigmoid)(const Elementwise&);
  void (*sigmoid_grad)(const Elementwise&);
  void (*scale)(const Scale&);
  void (*scale_backward)(const ScaleBackward&);
  void (*channel_sum)(const ChannelSum&);
  void (*column_sum)(const ColumnSum&);
  void (*l2_norm)(const L2Norm&);
  void (*max_pool)(const MaxPool&);
  void (*max_pool_backward)(const MaxPoolBackward&);
  void (*avg_pool)(const AvgPool&);
  void (*avg_pool_backward)(const AvgPool&);
  void (*global_avg_pool)(const AvgPool&);
  void (*global_avg_pool_backward)(const AvgPool&);
  void (*blur_pool)(const BlurPool&);
  void (*blur_pool_backward)(const BlurPool&);
  void (*softmax_cross_entropy)(const SoftmaxCrossEntropy&);
  void (*softmax_cross_entropy_backward)(const SoftmaxCrossEntropyBackward&);
  void (*sgd_update)(const SgdUpdate&);
  void (*running_average)(const RunningAverage&);
  void (*shift_channels)(const ChannelShift&);
  void (*to_blocked)(const ActivationLayout&);
  void (*to_plain)(const ActivationLayout&);
  void (*weights_to_blocked)(const WeightLayout&);
  void (*weights_to_plain)(const WeightLayout&);
};

/// The table of `isa` with its own block width, channel_block(isa). Calling a kernel of an instruction set
/// the processor lacks is undefined.
const SimdKernels& simd_kernels(Isa isa);
/// The same for a chosen block width, 8 or 16 (throws InternalError for another).
const SimdKernels& simd_kernels(Isa isa, int64_t block);

}  // namespace resnet::simd

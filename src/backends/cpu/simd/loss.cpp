// Softmax and cross entropy of plain logits. The rows are few and short, so all of it is in double.

#include <math.h>

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

void softmax_cross_entropy(const SoftmaxCrossEntropy& args) {
  const int64_t K = args.classes;
  const double smoothing = static_cast<double>(args.label_smoothing);
  double* loss = static_cast<double*>(args.scratch);  // [rows]
  double* correct = loss + args.rows;                 // [rows]
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, args.rows* K * 16))
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* z = args.logits + row * K;
    float* p = args.probabilities + row * K;
    const int64_t label = args.labels[row];
    int64_t best = 0;
    for (int64_t k = 1; k < K; ++k)
      if (z[k] > z[best]) best = k;
    const double top = static_cast<double>(z[best]);
    double sum = 0, sum_z = 0;
    for (int64_t k = 0; k < K; ++k) {
      sum += exp(static_cast<double>(z[k]) - top);
      sum_z += static_cast<double>(z[k]) - top;
    }
    // -log p[k] = log(sum) - (z[k] - top)
    const double log_sum = log(sum);
    loss[row] = (1 - smoothing) * (log_sum - (static_cast<double>(z[label]) - top));
    if (smoothing != 0) loss[row] += smoothing * (log_sum - sum_z / static_cast<double>(K));
    correct[row] = best == label ? 1 : 0;
    // Last, because p may be z.
    for (int64_t k = 0; k < K; ++k) p[k] = static_cast<float>(exp(static_cast<double>(z[k]) - top) / sum);
  }
  double total = 0, hits = 0;
  for (int64_t row = 0; row < args.rows; ++row) {
    total += loss[row];
    hits += correct[row];
  }
  *args.loss = static_cast<float>(total / static_cast<double>(args.rows));
  *args.correct = static_cast<float>(hits);
}

void softmax_cross_entropy_backward(const SoftmaxCrossEntropyBackward& args) {
  const int64_t K = args.classes;
  const double smoothing = static_cast<double>(args.label_smoothing);
  const double even = smoothing / static_cast<double>(K);
  const double scale = static_cast<double>(*args.dloss) / static_cast<double>(args.rows);
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, args.rows* K * 4))
  for (int64_t row = 0; row < args.rows; ++row) {
    const float* p = args.probabilities + row * K;
    float* d = args.dlogits + row * K;
    const int64_t label = args.labels[row];
    for (int64_t k = 0; k < K; ++k) {
      const double target = k == label ? 1 - smoothing + even : even;
      d[k] = static_cast<float>((static_cast<double>(p[k]) - target) * scale);
    }
  }
}

}  // namespace

template <int B>
void add_loss(SimdKernels& table) {
  table.softmax_cross_entropy = softmax_cross_entropy;
  table.softmax_cross_entropy_backward = softmax_cross_entropy_backward;
}
template void add_loss<8>(SimdKernels&);
template void add_loss<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA

// Flat kernels: one pass over memory, any alignment.

#include <math.h>

#include "backends/cpu/simd/kernels.h"

namespace resnet::simd::RESNET_ISA {
namespace {

constexpr int kLanes = kNativeLanes;

struct Relu {
  template <class V>
  RESNET_INLINE V operator()(V a, V) const {
    return RESNET_ISA::relu<kLanes>(a);
  }
};
struct ReluGrad {
  template <class V>
  RESNET_INLINE V operator()(V dy, V y) const {
    const V nothing = {};
    return y > nothing ? dy : nothing;
  }
};
struct Add {
  template <class V>
  RESNET_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};

struct SigmoidGrad {
  template <class V>
  RESNET_INLINE V operator()(V dy, V y) const {
    return dy * (y * (1.0f - y));
  }
};

/// The first `count` lanes of p, then zeros.
RESNET_INLINE Vec<kLanes> load_some(const float* p, int64_t count) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return load<kLanes>(lanes);
}
RESNET_INLINE void store_some(float* p, Vec<kLanes> v, int64_t count) {
  float lanes[kLanes];
  store<kLanes>(lanes, v);
  for (int64_t i = 0; i < count; ++i) p[i] = lanes[i];
}

/// The vectors of [0, n) that belong to the calling thread; the last thread also takes the tail.
RESNET_INLINE Range vectors_of_thread(int64_t n) {
  return share(n / kLanes, omp_get_thread_num(), omp_get_num_threads());
}

template <class F>
void binary(const Elementwise& args) {
  const F f;
  const float* a = args.a;
  const float* b = args.b ? args.b : args.a;
  float* y = args.y;
  const int64_t n = args.n;
#pragma omp parallel num_threads(useful_threads(args.threads, n * 4))
  {
    const Range vectors = vectors_of_thread(n);
    for (int64_t i = vectors.first * kLanes; i < vectors.last * kLanes; i += kLanes)
      store<kLanes>(y + i, f(load<kLanes>(a + i), load<kLanes>(b + i)));
  }
  const int64_t tail = n % kLanes;
  const int64_t i = n - tail;
  if (tail) store_some(y + i, f(load_some(a + i, tail), load_some(b + i, tail)), tail);
}

/// A value at a time: gates are small, a number for each channel.
void sigmoid(const Elementwise& args) {
#pragma omp parallel for schedule(static) num_threads(useful_threads(args.threads, args.n * 4))
  for (int64_t i = 0; i < args.n; ++i) args.y[i] = 1.0f / (1.0f + expf(-args.a[i]));
}

template <bool Momentum, bool Nesterov>
void update(const SgdUpdate& args) {
  const Vec<kLanes> lr = splat<kLanes>(args.lr);
  const Vec<kLanes> momentum = splat<kLanes>(args.momentum);
  const Vec<kLanes> weight_decay = splat<kLanes>(args.weight_decay);
  float* p = args.p;
  const float* g = args.g;
  float* buffer = args.buffer;
  const auto step = [&](Vec<kLanes> & value, Vec<kLanes> gradient, Vec<kLanes> & m) __attribute__((always_inline)) {
    gradient += weight_decay * value;
    if constexpr (Momentum) {
      m = momentum * m + gradient;
      gradient = Nesterov ? gradient + momentum * m : m;
    }
    value -= lr * gradient;
  };
#pragma omp parallel num_threads(useful_threads(args.threads, args.n * 4))
  {
    const Range vectors = vectors_of_thread(args.n);
    for (int64_t i = vectors.first * kLanes; i < vectors.last * kLanes; i += kLanes) {
      Vec<kLanes> value = load<kLanes>(p + i), m = {};
      if constexpr (Momentum) m = load<kLanes>(buffer + i);
      step(value, load<kLanes>(g + i), m);
      store<kLanes>(p + i, value);
      if constexpr (Momentum) store<kLanes>(buffer + i, m);
    }
  }
  const int64_t tail = args.n % kLanes;
  const int64_t i = args.n - tail;
  if (!tail) return;
  Vec<kLanes> value = load_some(p + i, tail), m = {};
  if constexpr (Momentum) m = load_some(buffer + i, tail);
  step(value, load_some(g + i, tail), m);
  store_some(p + i, value, tail);
  if constexpr (Momentum) store_some(buffer + i, m, tail);
}

RESNET_INLINE bool blocked_by(const float* guard) { return guard && !(*guard - *guard == 0.0f); }

void sgd_update(const SgdUpdate& args) {
  if (blocked_by(args.guard)) return;
  if (!args.buffer || args.momentum == 0.0f) return update<false, false>(args);
  return args.nesterov ? update<true, true>(args) : update<true, false>(args);
}

void running_average(const RunningAverage& args) {
  if (blocked_by(args.guard)) return;
  const float keep = 1.0f - args.momentum;
  const float take = args.momentum * args.factor;
  for (int64_t i = 0; i < args.n; ++i) args.running[i] = keep * args.running[i] + take * args.batch[i];
}

}  // namespace

template <int B>
void add_elementwise(SimdKernels& table) {
  table.relu = binary<Relu>;
  table.relu_grad = binary<ReluGrad>;
  table.add = binary<Add>;
  table.sigmoid = sigmoid;
  table.sigmoid_grad = binary<SigmoidGrad>;
  table.sgd_update = sgd_update;
  table.running_average = running_average;
}
template void add_elementwise<8>(SimdKernels&);
template void add_elementwise<16>(SimdKernels&);

}  // namespace resnet::simd::RESNET_ISA

#include "ops/softmax_cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "base/tensor.h"
#include "ops/shape_rule.h"

namespace resnet {
namespace {

void check_smoothing(const ShapeRule& rule, const LossAttrs& a) {
  if (!(a.label_smoothing >= 0 && a.label_smoothing <= 1)) {
    rule.fail("label smoothing is {}, expected 0 to 1", a.label_smoothing);
  }
}

std::vector<TensorType> loss_shape(const InferCall& call) {
  const ShapeRule rule("softmax_cross_entropy", call);
  rule.inputs(2);
  rule.rank(0, "logits", 2, "N,K");
  rule.floating(0, "logits");
  rule.type(1, "labels", {DType::i32, {rule.shape(0)[0]}});
  check_smoothing(rule, std::get<LossAttrs>(call.attributes));
  const TensorType scalar{rule.in(0).dtype, {}};
  return {scalar, rule.in(0), scalar};
}

std::vector<TensorType> grad_shape(const InferCall& call) {
  const ShapeRule rule("softmax_cross_entropy_grad", call);
  rule.inputs(3);
  rule.rank(0, "probabilities", 2, "N,K");
  rule.floating(0, "probabilities");
  rule.type(1, "labels", {DType::i32, {rule.shape(0)[0]}});
  rule.type(2, "dloss", {rule.in(0).dtype, {}});
  check_smoothing(rule, std::get<LossAttrs>(call.attributes));
  return {rule.in(0)};
}

std::vector<Value> loss_grad(GradContext& context) {
  if (context.cotangents[1] || context.cotangents[2] || !context.dy()) {
    throw InternalError(fmt::format("softmax_cross_entropy '{}': only the loss has a gradient", context.node.name));
  }
  return {context.add(kSoftmaxCrossEntropyGrad, {context.output(1), context.input(1), context.dy()},
                      context.attributes<LossAttrs>()),
          Value{}};
}

int64_t label_of(const int32_t* labels, int64_t n, int64_t K) {
  if (labels[n] < 0 || labels[n] >= K) {
    throw InternalError(fmt::format("softmax_cross_entropy: label {} of row {} is outside [0, {})", labels[n], n, K));
  }
  return labels[n];
}

void loss_ref(const RefCall& call) {
  const double smoothing = std::get<LossAttrs>(call.attributes).label_smoothing;
  const int64_t N = call.in[0].shape()[0];
  const int64_t K = call.in[0].shape()[1];
  const int32_t* labels = call.in[1].as<int32_t>();
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    double loss = 0;
    int64_t correct = 0;
    for (int64_t n = 0; n < N; ++n) {
      const T* logits = call.in[0].as<T>() + n * K;
      const int64_t label = label_of(labels, n, K);
      const T* best = std::max_element(logits, logits + K);
      correct += best - logits == label;
      const auto shift = static_cast<double>(*best);
      double sum = 0;
      double total = 0;
      for (int64_t k = 0; k < K; ++k) {
        sum += std::exp(static_cast<double>(logits[k]) - shift);
        total += static_cast<double>(logits[k]) - shift;
      }
      const double log_sum = std::log(sum);
      loss += (1 - smoothing) * (log_sum + shift - static_cast<double>(logits[label]));
      loss += smoothing * (log_sum - total / static_cast<double>(K));
      for (int64_t k = 0; k < K; ++k) {
        call.out[1].as<T>()[n * K + k] = static_cast<T>(std::exp(static_cast<double>(logits[k]) - shift) / sum);
      }
    }
    *call.out[0].as<T>() = static_cast<T>(loss / static_cast<double>(N));
    *call.out[2].as<T>() = static_cast<T>(correct);
  });
}

void grad_ref(const RefCall& call) {
  const double smoothing = std::get<LossAttrs>(call.attributes).label_smoothing;
  const int64_t N = call.in[0].shape()[0];
  const int64_t K = call.in[0].shape()[1];
  with_float(call.in[0].type->dtype, [&](auto tag) {
    using T = decltype(tag);
    const double scale = static_cast<double>(*call.in[2].as<T>()) / static_cast<double>(N);
    const double rest = smoothing / static_cast<double>(K);
    for (int64_t n = 0; n < N; ++n) {
      const int64_t label = label_of(call.in[1].as<int32_t>(), n, K);
      for (int64_t k = 0; k < K; ++k) {
        const double target = (k == label ? 1 - smoothing : 0) + rest;
        call.out[0].as<T>()[n * K + k] =
            static_cast<T>(scale * (static_cast<double>(call.in[0].as<T>()[n * K + k]) - target));
      }
    }
  });
}

// Per logit: a comparison, two differences, an exponential, two sums and a division.
Cost loss_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  Cost cost = elementwise_cost(in, out, 0);
  cost.flops = 7 * count(in[0]);
  return cost;
}

Cost grad_cost(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out) {
  return elementwise_cost(in, out, 2);
}

}  // namespace

const OpDef kSoftmaxCrossEntropy = {
    .name = "softmax_cross_entropy", .infer = loss_shape, .grad = loss_grad, .ref = loss_ref, .cost = loss_cost};

const OpDef kSoftmaxCrossEntropyGrad = {
    .name = "softmax_cross_entropy_grad", .infer = grad_shape, .grad = no_gradient, .ref = grad_ref, .cost = grad_cost};

SoftmaxCrossEntropyResult softmax_cross_entropy(Value logits, Value labels, double label_smoothing, std::string name) {
  const Value loss =
      logits.graph->add(kSoftmaxCrossEntropy, {logits, labels}, LossAttrs{label_smoothing}, std::move(name));
  return {loss, {loss.graph, loss.node, 1}, {loss.graph, loss.node, 2}};
}

}  // namespace resnet

#pragma once
// What an op is: one record that cannot be half filled. The records live in src/ops; this header
// only says what every record must answer.

#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/shape.h"
#include "base/tensor.h"
#include "graph/attributes.h"

namespace resnet {

class Graph;
struct GradContext;

/// One result of one node. A default-constructed Value is "none".
struct Value {
  Graph* graph = nullptr;
  int32_t node = -1;
  int32_t output = 0;

  explicit operator bool() const { return graph != nullptr; }
  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  bool operator==(const Value&) const = default;
  auto operator<=>(const Value& other) const { return std::pair(node, output) <=> std::pair(other.node, other.output); }
};

struct InferCall {
  const Attributes& attributes;
  std::span<const TensorType> in;
  std::string_view name;  ///< the node's path, for messages
};

struct ConstView {
  const TensorType* type;
  const void* data;
  const Shape& shape() const { return type->shape; }
  template <class T>
  const T* as() const {
    return static_cast<const T*>(data);
  }
};

struct View {
  const TensorType* type;
  void* data;
  const Shape& shape() const { return type->shape; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

/// A call of the reference loops: row-major buffers.
struct RefCall {
  const Attributes& attributes;
  std::span<const ConstView> in;
  std::span<const View> out;
};

/// Work of one node: floating-point operations (a multiply-add counts two) and bytes it must move.
struct Cost {
  double flops = 0;
  double bytes = 0;
};

using InferFn = std::vector<TensorType> (*)(const InferCall&);  ///< throws UserError with the shapes
using GradFn = std::vector<Value> (*)(GradContext&);            ///< one Value per input; none = no gradient
using RefFn = void (*)(const RefCall&);
using CostFn = Cost (*)(const Attributes&, std::span<const TensorType> in, std::span<const TensorType> out);

/// A function pointer without a default: leaving the field out does not compile.
template <class Fn>
class Required {
 public:
  constexpr Required(Fn fn) : fn_(fn) {}  // NOLINT: implicit on purpose, so that records read as tables
  template <class... Args>
  auto operator()(Args&&... args) const {
    return fn_(std::forward<Args>(args)...);
  }

 private:
  Fn fn_;
};

/// Output `output` may be written over input `input` by a kernel (of that input, element i depends on element i only).
struct InPlace {
  int output;
  int input;
  /// Elementwise ops' results lie as their inputs do. Without it the result's layout is its own, and it is written over
  /// an input that happens to lie alike.
  bool takes_layout = true;
};

struct OpDef {
  std::string_view name;
  Required<InferFn> infer;
  Required<GradFn> grad;
  Required<RefFn> ref;
  Required<CostFn> cost;
  std::span<const InPlace> in_place = {};
};

/// The gradient rule of ops that have none: throws InternalError naming the op.
std::vector<Value> no_gradient(GradContext& context);

/// Bytes of all inputs read once and all outputs written once, with `flops_per_output` per element.
Cost elementwise_cost(std::span<const TensorType> in, std::span<const TensorType> out, double flops_per_output);

}  // namespace resnet

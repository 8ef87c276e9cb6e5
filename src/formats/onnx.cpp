#include "formats/onnx.h"

#include <onnx/onnx.pb.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/utf8.h"

namespace resnet {
namespace {

/// Values that follow from sizes alone are initializers, not nodes.
using Integers = std::vector<int64_t>;

/// Writes one graph. An op's form below sees its node and asks for inputs, attributes and outputs by name.
class OnnxWriter {
 public:
  OnnxWriter(const Graph& graph, const std::map<std::string, Tensor>& states, const OnnxOptions& options)
      : graph_(graph), states_(states), options_(options), onnx_(*model_.mutable_graph()) {}

  onnx::ModelProto write() {
    // The file format's version that came with the opset; runtimes refuse files newer than themselves.
    model_.set_ir_version(options_.opset >= 15 ? 8 : 7);
    model_.set_producer_name("resnet");
    model_.set_producer_version(options_.producer_version);
    model_.add_opset_import()->set_version(options_.opset);
    for (const auto& [key, value] : options_.metadata) {
      require_utf8(key);
      require_utf8(value);
      onnx::StringStringEntryProto* entry = model_.add_metadata_props();
      entry->set_key(key);
      entry->set_value(value);
    }
    onnx_.set_name(options_.graph_name);
    for (const auto& [name, id] : graph_.leaves()) taken_.insert(name);
    for (const auto& [name, value] : graph_.outputs()) taken_.insert(name);
    for (const auto& [name, value] : graph_.outputs()) {
      if (graph_.node(value).kind != NodeKind::op)
        throw UserError("onnx: output '{}' is no node's result; expected one", name);
      if (!names_.emplace(key(value), name).second)
        throw UserError("onnx: output '{}' stands for the same value as another; expected one name", name);
    }
    for (const int32_t id : graph_.live_nodes()) write_node(id);
    for (const auto& [name, value] : graph_.outputs()) declare(*onnx_.add_output(), name, value.type());
    return std::move(model_);
  }

  // What the forms are written with.

  const Node& node() const { return *node_; }
  template <class T>
  const T& attributes() const {
    return std::get<T>(node_->attributes);
  }
  /// The name of the node's i-th input.
  std::string input(size_t i) const { return names_.at(key(node_->inputs[i])); }
  const Shape& input_shape(size_t i) const { return node_->inputs[i].shape(); }
  const Shape& output_shape() const { return node_->outputs[0].shape; }

  /// Adds a node of ONNX. Its result is that of our node, unless `link` names a step on the way there.
  onnx::NodeProto& add(const char* type, const std::vector<std::string>& inputs, const std::string& link = "") {
    onnx::NodeProto& added = *onnx_.add_node();
    added.set_op_type(type);
    added.set_name(unique(node_names_, layer() + link));
    for (const std::string& name : inputs) added.add_input(name);
    added.add_output(link.empty() ? result_ : fresh(layer() + link));
    return added;
  }
  /// An initializer of integers, such as a shape.
  std::string integers(const std::string& what, const Integers& values) {
    onnx::TensorProto& tensor = *onnx_.add_initializer();
    tensor.set_name(fresh(layer() + what));
    tensor.set_data_type(onnx::TensorProto::INT64);
    tensor.add_dims(static_cast<int64_t>(values.size()));
    tensor.set_raw_data(values.data(), values.size() * sizeof(int64_t));
    return tensor.name();
  }
  /// An initializer of any kind.
  std::string constant(const std::string& what, const Tensor& tensor) {
    const std::string name = fresh(layer() + what);
    initializer(name, tensor);
    return name;
  }
  /// The value of an input that is a state.
  const Tensor& state(size_t i) const {
    const auto found = states_.find(graph_.node(node_->inputs[i]).name);
    check(found != states_.end(), "onnx: a state without its value");
    return found->second;
  }

  /// What the whole numbers of an 8-bit value stand for: (q - zero) * scale.
  struct Steps {
    float scale = 1;
    int zero = 0;
    bool padded = false;  ///< the image's border is there already
  };
  const Steps& steps(size_t input) const { return steps_.at(key(node_->inputs[input])); }
  /// Of the node's result.
  void set_steps(const Steps& steps) { steps_[key(result_value_)] = steps; }
  float output_scale() const {
    const auto found = options_.output_scales.find(node_->name);
    return found == options_.output_scales.end() ? 1.0f : found->second;
  }
  /// The convolutions that read the node's result.
  std::vector<const Node*> reading_convolutions() const {
    std::vector<const Node*> readers;
    for (const int32_t id : graph_.live_nodes()) {
      const Node& reader = graph_.node(id);
      if (reader.op && reader.op->name == "quantized_conv2d" && reader.inputs[0] == result_value_)
        readers.push_back(&reader);
    }
    return readers;
  }
  const Tensor& state_of(const Node& node, size_t input) const {
    return states_.at(graph_.node(node.inputs[input]).name);
  }

  /// An initializer of the node's dtype.
  std::string reals(const std::string& what, const Shape& shape, const std::vector<double>& values) {
    Tensor tensor(node_->outputs[0].dtype, shape);
    with_float(tensor.dtype(), [&](auto tag) {
      using T = decltype(tag);
      std::transform(values.begin(), values.end(), tensor.as<T>().begin(), [](double v) { return static_cast<T>(v); });
    });
    const std::string name = fresh(layer() + what);
    initializer(name, tensor);
    return name;
  }

  template <class... Args>
  UserError refused(fmt::format_string<Args...> text, Args&&... args) const {
    return UserError("onnx: {} '{}': {}", node_->op->name, node_->name, fmt::format(text, std::forward<Args>(args)...));
  }

  /// A shape for Reshape, whose 0 stands for the input's own dimension there: so the batch may be any.
  Integers shape_of_batch(const Shape& shape) const {
    Integers dims = shape.dims();
    if (!options_.dynamic_batch) return dims;
    if (dims.empty() || input_shape(0).rank() < 1 || dims[0] != input_shape(0)[0])
      throw refused("makes {} of {}, which depends on the batch; expected --no-dynamic-batch", shape.str(),
                    input_shape(0).str());
    dims[0] = 0;
    return dims;
  }

 private:
  static std::pair<int32_t, int32_t> key(Value value) { return {value.node, value.output}; }

  static void require_utf8(const std::string& text) {
    for (size_t at = 0; at < text.size();) {
      const auto point = code_point_at(text, at);
      if (!point)
        throw UserError(ExitCode::bad_data, "onnx: '{}' is not UTF-8; expected UTF-8 names and metadata",
                        escape_control(text));
      at += point->bytes;
    }
  }

  std::string layer() const { return node_->name.empty() ? std::string(node_->op->name) : node_->name; }

  /// `name`, or `name` with a number behind it when another has it.
  static std::string unique(std::set<std::string>& taken, const std::string& name) {
    std::string chosen = name;
    for (int i = 2; !taken.insert(chosen).second; ++i) chosen = fmt::format("{}_{}", name, i);
    return chosen;
  }
  std::string fresh(const std::string& name) { return unique(taken_, name); }

  static onnx::TensorProto::DataType type_of(DType dtype) {
    switch (dtype) {
      case DType::f32: return onnx::TensorProto::FLOAT;
      case DType::f64: return onnx::TensorProto::DOUBLE;
      case DType::i32: return onnx::TensorProto::INT32;
      case DType::u8: return onnx::TensorProto::UINT8;
      case DType::i8: return onnx::TensorProto::INT8;
    }
    throw InternalError("onnx: unknown dtype");
  }

  void declare(onnx::ValueInfoProto& info, const std::string& name, const TensorType& type) const {
    info.set_name(name);
    onnx::TypeProto::Tensor& tensor = *info.mutable_type()->mutable_tensor_type();
    tensor.set_elem_type(type_of(type.dtype));
    onnx::TensorShapeProto& shape = *tensor.mutable_shape();
    for (int axis = 0; axis < type.shape.rank(); ++axis) {
      onnx::TensorShapeProto::Dimension& dim = *shape.add_dim();
      if (axis == 0 && options_.dynamic_batch) {
        dim.set_dim_param("batch");
      } else {
        dim.set_dim_value(type.shape[axis]);
      }
    }
  }

  void initializer(const std::string& name, const Tensor& value) {
    onnx::TensorProto& tensor = *onnx_.add_initializer();
    tensor.set_name(name);
    tensor.set_data_type(type_of(value.dtype()));
    for (const int64_t dim : value.shape().dims()) tensor.add_dims(dim);
    tensor.set_raw_data(value.data(), value.size_bytes());
  }

  void write_node(int32_t id);

  /// Whether a state is read by quantised ops alone, whose forms write constants of their own from it.
  bool is_taken_apart(int32_t id) const {
    bool read = false;
    for (const int32_t reader : graph_.live_nodes()) {
      const Node& node = graph_.node(reader);
      for (const Value& input : node.inputs) {
        if (input.node != id) continue;
        read = true;
        if (!node.op->name.starts_with("quantize") && node.op->name != "dequantize") return false;
      }
    }
    return read;
  }

  const Graph& graph_;
  const std::map<std::string, Tensor>& states_;
  const OnnxOptions& options_;
  onnx::ModelProto model_;
  onnx::GraphProto& onnx_;
  std::map<std::pair<int32_t, int32_t>, std::string> names_;  ///< of values
  std::set<std::string> taken_, node_names_;
  std::map<std::pair<int32_t, int32_t>, Steps> steps_;  ///< of 8-bit values
  const Node* node_ = nullptr;                          ///< being written
  Value result_value_;
  std::string result_;  ///< the name of its output 0
};

void set(onnx::NodeProto& node, const char* name, const Integers& values) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INTS);
  for (const int64_t value : values) attribute.add_ints(value);
}
void set(onnx::NodeProto& node, const char* name, int64_t value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::INT);
  attribute.set_i(value);
}
void set(onnx::NodeProto& node, const char* name, double value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::FLOAT);
  attribute.set_f(static_cast<float>(value));
}

void set(onnx::NodeProto& node, const char* name, const char* value) {
  onnx::AttributeProto& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(onnx::AttributeProto::STRING);
  attribute.set_s(value);
}

Integers both(Size2 size) { return {size.h, size.w}; }
/// Before each axis, then behind each.
Integers pads(Size2 pad) { return {pad.h, pad.w, pad.h, pad.w}; }

/// What is fused into a node's last write, relu?(y + residual?), as nodes of its own. A residual is the last input.
class Tail {
 public:
  Tail(OnnxWriter& w, bool residual, bool relu) : w_(w), residual_(residual), relu_(relu) {}
  /// Of y, for OnnxWriter::add.
  const char* link() const { return residual_ || relu_ ? "/linear" : ""; }
  void write(std::string y) const {
    if (residual_) y = w_.add("Add", {y, w_.input(w_.node().inputs.size() - 1)}, relu_ ? "/sum" : "").output(0);
    if (relu_) w_.add("Relu", {y});
  }

 private:
  OnnxWriter& w_;
  bool residual_, relu_;
};

// The forms, one an op; in the order of the table below.

// Attributes are taken apart member by member: one that is added to them does not compile here until it has its place.

void add_form(OnnxWriter& w) { w.add("Add", {w.input(0), w.input(1)}); }

void avg_pool_form(OnnxWriter& w) {
  const auto& [kernel, stride, pad, count_include_pad, ceil_mode] = w.attributes<PoolAttrs>();
  onnx::NodeProto& node = w.add("AveragePool", {w.input(0)});
  set(node, "kernel_shape", both(kernel));
  set(node, "strides", both(stride));
  set(node, "pads", pads(pad));
  set(node, "count_include_pad", int64_t{count_include_pad});
  set(node, "ceil_mode", int64_t{ceil_mode});
}

void batch_norm_form(OnnxWriter& w) {
  const auto& [epsilon, training, residual, relu] = w.attributes<BatchNormAttrs>();
  if (training) throw w.refused("normalises by the batch; expected an inference graph");
  const Tail tail(w, residual, relu);
  onnx::NodeProto& node =
      w.add("BatchNormalization", {w.input(0), w.input(1), w.input(2), w.input(3), w.input(4)}, tail.link());
  set(node, "epsilon", epsilon);
  tail.write(node.output(0));
}

/// Blur by a fixed kernel, each channel on its own, over a mirrored border.
void blur_pool_form(OnnxWriter& w) {
  const auto stride = w.attributes<PoolAttrs>().stride;  // kernel and pad are always these
  const int64_t channels = w.input_shape(0)[1];
  std::vector<double> kernel;
  for (int64_t k = 0; k < channels; ++k) {
    for (const double row : {0.25, 0.5, 0.25}) {
      for (const double column : {0.25, 0.5, 0.25}) kernel.push_back(row * column);
    }
  }
  onnx::NodeProto& mirrored = w.add("Pad", {w.input(0), w.integers("/pads", {0, 0, 1, 1, 0, 0, 1, 1})}, "/mirrored");
  set(mirrored, "mode", "reflect");
  onnx::NodeProto& node = w.add("Conv", {mirrored.output(0), w.reals("/kernel", {channels, 1, 3, 3}, kernel)});
  set(node, "kernel_shape", Integers{3, 3});
  set(node, "strides", both(stride));
  set(node, "group", channels);
}

/// Along the channels: for ONNX they become the pixels of a row.
void channel_conv_form(OnnxWriter& w) {
  const int64_t channels = w.input_shape(0)[1], width = w.input_shape(1)[2];
  const std::string row = w.add("Reshape", {w.input(0), w.integers("/row", {0, 1, channels})}, "/as_row").output(0);
  onnx::NodeProto& node = w.add("Conv", {row, w.input(1)}, "/along");
  set(node, "kernel_shape", Integers{width});
  set(node, "pads", Integers{(width - 1) / 2, (width - 1) / 2});
  w.add("Reshape", {node.output(0), w.integers("/maps", {0, channels, 1, 1})});
}

void conv2d_form(OnnxWriter& w) {
  const auto& [stride, pad, dilation, groups, bias, residual, relu] = w.attributes<Conv2dAttrs>();
  const Tail tail(w, residual, relu);
  std::vector<std::string> inputs = {w.input(0), w.input(1)};
  if (bias) inputs.push_back(w.input(2));
  onnx::NodeProto& node = w.add("Conv", inputs, tail.link());
  set(node, "kernel_shape", Integers{w.input_shape(1)[2], w.input_shape(1)[3]});
  set(node, "strides", both(stride));
  set(node, "pads", pads(pad));
  set(node, "dilations", both(dilation));
  set(node, "group", groups);
  tail.write(node.output(0));
}

void global_avg_pool_form(OnnxWriter& w) { w.add("GlobalAveragePool", {w.input(0)}); }

void linear_form(OnnxWriter& w) {
  const auto& [bias] = w.attributes<LinearAttrs>();
  std::vector<std::string> inputs = {w.input(0), w.input(1)};
  if (bias) inputs.push_back(w.input(2));
  set(w.add("Gemm", inputs), "transB", int64_t{1});
}

void max_pool_form(OnnxWriter& w) {
  const auto& [kernel, stride, pad, count_include_pad, ceil_mode] = w.attributes<PoolAttrs>();
  static_cast<void>(count_include_pad);  // means nothing to a maximum
  onnx::NodeProto& node = w.add("MaxPool", {w.input(0)});
  set(node, "kernel_shape", both(kernel));
  set(node, "strides", both(stride));
  set(node, "pads", pads(pad));
  set(node, "ceil_mode", int64_t{ceil_mode});
}

/// Axis 1 of a tensor of any rank: zeros before and behind it.
void pad_channels_form(OnnxWriter& w) {
  const auto& [before, after] = w.attributes<ChannelPadAttrs>();
  const auto rank = static_cast<size_t>(w.input_shape(0).rank());
  Integers widths(2 * rank, 0);
  widths[1] = before;
  widths[rank + 1] = after;
  w.add("Pad", {w.input(0), w.integers("/pads", widths)});
}

// The quantised ops, in real numbers between QuantizeLinear and DequantizeLinear.

Tensor scalar(float value) {
  Tensor tensor(DType::f32, Shape{});
  tensor.as<float>()[0] = value;
  return tensor;
}

Tensor zero_point(DType dtype, int value) {
  Tensor tensor(dtype, Shape{});
  if (dtype == DType::u8) {
    tensor.as<uint8_t>()[0] = static_cast<uint8_t>(value);
  } else {
    tensor.as<int8_t>()[0] = static_cast<int8_t>(value);
  }
  return tensor;
}

/// An 8-bit input in real numbers.
std::string widened(OnnxWriter& w, size_t input, const std::string& what) {
  const auto& steps = w.steps(input);
  const DType dtype = w.node().inputs[input].type().dtype;
  return w
      .add("DequantizeLinear",
           {w.input(input), w.constant(what + "_scale", scalar(steps.scale)),
            w.constant(what + "_zero", zero_point(dtype, steps.zero))},
           what)
      .output(0);
}

/// The last step of a node: the real number y as a whole one.
void write_rounded(OnnxWriter& w, const std::string& y, const OnnxWriter::Steps& steps) {
  w.add("QuantizeLinear", {y, w.constant("/scale", scalar(steps.scale)),
                           w.constant("/zero", zero_point(w.node().outputs[0].dtype, steps.zero))});
  w.set_steps(steps);
}

bool all_equal(const Tensor& tensor) {
  const auto values = tensor.as<float>();
  return std::all_of(values.begin(), values.end(), [&](float v) { return v == values[0]; });
}

void quantize_form(OnnxWriter& w) {
  const Tensor& factor = w.state(1);
  const Tensor& zeros = w.state(2);
  const float zero = zeros.as<float>()[0];
  const bool is_signed = w.node().outputs[0].dtype == DType::i8;
  const bool fits = is_signed ? zero >= -128 && zero <= 127 : zero >= 0 && zero <= 255;
  if (all_equal(factor) && all_equal(zeros) && fits && zero == static_cast<float>(static_cast<int>(zero)))
    return write_rounded(w, w.input(0), {1 / factor.as<float>()[0], static_cast<int>(zero)});
  // A scale for each channel, as of pixels: they are made first, and rounded with steps of one. ONNX pads with real
  // zeros, which are other pixels in each channel: so the border is put around the image before.
  std::string x = w.input(0);
  OnnxWriter::Steps steps;
  const std::vector<const Node*> readers = w.reading_convolutions();
  if (readers.size() != 1) throw w.refused("{} convolutions read it; expected one", readers.size());
  const Size2 pad = std::get<QuantizedConv2dAttrs>(readers[0]->attributes).conv.pad;
  if (!(pad == Size2{0, 0})) {
    x = w.add("Pad", {x, w.integers("/pads", {0, 0, pad.h, pad.w, 0, 0, pad.h, pad.w})}, "/padded").output(0);
    steps.padded = true;
  }
  const Shape maps{1, factor.shape()[0], 1, 1};
  const auto reshaped = [&](const Tensor& from) {
    Tensor to(DType::f32, maps);
    std::copy(from.as<float>().begin(), from.as<float>().end(), to.as<float>().begin());
    return to;
  };
  x = w.add("Mul", {x, w.constant("/factor", reshaped(factor))}, "/scaled").output(0);
  x = w.add("Add", {x, w.constant("/shift", reshaped(zeros))}, "/pixels").output(0);
  write_rounded(w, x, steps);
}

void dequantize_form(OnnxWriter& w) {
  const auto& steps = w.steps(0);
  w.add("DequantizeLinear", {w.input(0), w.constant("/scale", scalar(steps.scale)),
                             w.constant("/zero", zero_point(w.node().inputs[0].type().dtype, steps.zero))});
}

void quantized_conv2d_form(OnnxWriter& w) {
  const auto& [conv, output] = w.attributes<QuantizedConv2dAttrs>();
  const auto& [stride, pad, dilation, groups, bias, residual, relu] = conv;
  static_cast<void>(output);
  static_cast<void>(bias);
  const auto& x = w.steps(0);
  const Tensor& weight = w.state(1);
  const Tensor& multiplier = w.state(2);
  const Tensor& offset = w.state(3);
  const float y_scale = w.output_scale();
  const int64_t filters = weight.shape()[0];
  const int64_t taps = weight.elements() / filters;
  // What the op has folded together, apart again: multiplier = x_scale * weight_scale / y_scale, and so on.
  Tensor weight_scale(DType::f32, Shape{filters}), bias_scale(DType::f32, Shape{filters});
  Tensor weight_zero(DType::i8, Shape{filters}), whole_bias(DType::i32, Shape{filters});
  Tensor plain_bias(DType::f32, Shape{filters});
  bool whole = true;  // in a filter of weights next to nothing a bias may be more steps than 32 bits count
  double residual_shift = 0;
  if (residual) {
    residual_shift = static_cast<double>(w.state(6).as<float>()[0]) * static_cast<double>(w.steps(5).zero);
  }
  for (size_t k = 0; k < static_cast<size_t>(filters); ++k) {
    const double m = static_cast<double>(multiplier.as<float>()[k]);
    int64_t sum = 0;
    for (int64_t i = 0; i < taps; ++i)
      sum += weight.as<int8_t>()[k * static_cast<size_t>(taps) + static_cast<size_t>(i)];
    const double b =
        static_cast<double>(offset.as<float>()[k]) + m * static_cast<double>(sum * x.zero) + residual_shift;
    weight_scale.as<float>()[k] = static_cast<float>(m * static_cast<double>(y_scale) / static_cast<double>(x.scale));
    bias_scale.as<float>()[k] = static_cast<float>(m * static_cast<double>(y_scale));
    plain_bias.as<float>()[k] = static_cast<float>(b * static_cast<double>(y_scale));
    const double bias_steps = std::nearbyint(b / m);
    whole = whole && std::abs(bias_steps) < 2147483648.0;
    if (whole) whole_bias.as<int32_t>()[k] = static_cast<int32_t>(bias_steps);
  }
  const std::string pixels = widened(w, 0, "/x");
  onnx::NodeProto& real_weight = w.add("DequantizeLinear",
                                       {w.constant("/weight", weight), w.constant("/weight_scale", weight_scale),
                                        w.constant("/weight_zero", weight_zero)},
                                       "/w");
  set(real_weight, "axis", int64_t{0});
  const std::string weight_name = real_weight.output(0);
  std::string bias_name;
  if (whole) {
    onnx::NodeProto& real_bias =
        w.add("DequantizeLinear", {w.constant("/bias", whole_bias), w.constant("/bias_scale", bias_scale)}, "/b");
    set(real_bias, "axis", int64_t{0});
    bias_name = real_bias.output(0);
  } else {
    bias_name = w.constant("/bias", plain_bias);
  }
  onnx::NodeProto& node = w.add("Conv", {pixels, weight_name, bias_name}, "/linear");
  set(node, "kernel_shape", Integers{weight.shape()[2], weight.shape()[3]});
  set(node, "strides", both(stride));
  set(node, "pads", pads(x.padded ? Size2{0, 0} : pad));
  set(node, "dilations", both(dilation));
  set(node, "group", groups);
  std::string y = node.output(0);
  if (residual) y = w.add("Add", {y, widened(w, 5, "/r")}, "/sum").output(0);
  if (relu) y = w.add("Relu", {y}, "/relu").output(0);
  write_rounded(w, y, {y_scale, 0});
}

void quantized_max_pool_form(OnnxWriter& w) {
  const auto& [kernel, stride, pad, count_include_pad, ceil_mode] = w.attributes<PoolAttrs>();
  static_cast<void>(count_include_pad);
  const OnnxWriter::Steps steps = w.steps(0);
  onnx::NodeProto& node = w.add("MaxPool", {widened(w, 0, "/x")}, "/real");
  set(node, "kernel_shape", both(kernel));
  set(node, "strides", both(stride));
  set(node, "pads", pads(pad));
  set(node, "ceil_mode", int64_t{ceil_mode});
  write_rounded(w, node.output(0), steps);
}

void quantized_global_avg_pool_form(OnnxWriter& w) { w.add("GlobalAveragePool", {widened(w, 0, "/x")}); }

void relu_form(OnnxWriter& w) { w.add("Relu", {w.input(0)}); }

void reshape_form(OnnxWriter& w) {
  w.add("Reshape", {w.input(0), w.integers("/shape", w.shape_of_batch(w.output_shape()))});
}

/// A factor for each map, [N,C,1,1], which ONNX repeats over its pixels as we do.
void scale_form(OnnxWriter& w) {
  if (w.input_shape(1).rank() != 4)
    throw w.refused("scales whole images, as training does; expected a factor for each map");
  w.add("Mul", {w.input(0), w.input(1)});
}

void sigmoid_form(OnnxWriter& w) { w.add("Sigmoid", {w.input(0)}); }

void slice_channels_form(OnnxWriter& w) {
  const auto& [before, after] = w.attributes<ChannelPadAttrs>();
  w.add("Slice", {w.input(0), w.integers("/starts", {before}), w.integers("/ends", {w.input_shape(0)[1] - after}),
                  w.integers("/axes", {1})});
}

/// An op by its name, for this folder knows graphs and not the ops that they are made of.
struct Form {
  std::string_view op;
  void (*write)(OnnxWriter&);
};

/// Every op that an inference graph may hold. Those of training have no form: a new op goes here or into the test's
/// list of those.
constexpr Form kForms[] = {
    {"add", add_form},
    {"avg_pool", avg_pool_form},
    {"batch_norm_inference", batch_norm_form},
    {"blur_pool", blur_pool_form},
    {"channel_conv", channel_conv_form},
    {"conv2d", conv2d_form},
    {"dequantize", dequantize_form},
    {"global_avg_pool", global_avg_pool_form},
    {"linear", linear_form},
    {"max_pool", max_pool_form},
    {"pad_channels", pad_channels_form},
    {"quantize", quantize_form},
    {"quantized_conv2d", quantized_conv2d_form},
    {"quantized_global_avg_pool", quantized_global_avg_pool_form},
    {"quantized_max_pool", quantized_max_pool_form},
    {"relu", relu_form},
    {"reshape", reshape_form},
    {"scale", scale_form},
    {"sigmoid", sigmoid_form},
    {"slice_channels", slice_channels_form},
};

void OnnxWriter::write_node(int32_t id) {
  const Node& node = graph_.node(id);
  if (node.kind != NodeKind::op) {
    require_utf8(node.name);
    names_[{id, 0}] = node.name;
    if (node.kind == NodeKind::input) return declare(*onnx_.add_input(), node.name, node.outputs[0]);
    if (is_taken_apart(id)) return;
    const auto found = states_.find(node.name);
    check(found != states_.end() && found->second.type() == node.outputs[0], "onnx: a state without its value");
    return initializer(node.name, found->second);
  }
  node_ = &node;
  result_value_ = {const_cast<Graph*>(&graph_), id, 0};
  const auto form =
      std::find_if(std::begin(kForms), std::end(kForms), [&](const Form& f) { return f.op == node.op->name; });
  if (form == std::end(kForms)) throw refused("has no form in ONNX; expected one of {}", fmt::join(onnx_ops(), ", "));
  for (const auto& [output, name] : names_) {
    if (output.first == id && output.second != 0)
      throw refused("its result {} is an output; in ONNX only its first is", output.second);
  }
  const auto named = names_.find({id, 0});
  result_ = named != names_.end() ? named->second : fresh(layer());
  names_[{id, 0}] = result_;
  for (const Value& input : node.inputs) {
    if (!names_.contains(key(input)))
      throw refused("reads result {} of a node; in ONNX only its first is", input.output);
  }
  form->write(*this);
}

}  // namespace

void write_onnx(ByteSink& sink, const Graph& graph, const std::map<std::string, Tensor>& states,
                const OnnxOptions& options) {
  if (options.opset < kOldestOpset || options.opset > kNewestOpset)
    throw UserError("--opset: {}; expected {} to {}", options.opset, kOldestOpset, kNewestOpset);
  constexpr uint64_t kMostBytes = uint64_t{1} << 31;  // protobuf's limit on one message
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : states) bytes += tensor.size_bytes();
  onnx::ModelProto model;
  if (bytes < kMostBytes) model = OnnxWriter(graph, states, options).write();
  if (bytes >= kMostBytes || model.ByteSizeLong() >= kMostBytes) {
    throw ResourceError(ExitCode::limit, "onnx: the model has {} bytes of weights; a file of ONNX holds less than {}",
                        bytes, kMostBytes);
  }
  std::string text;
  check(model.SerializeToString(&text), "onnx: the message does not serialise");
  sink.write(text);
}

std::vector<std::string> onnx_ops() {
  std::vector<std::string> names;
  for (const Form& form : kForms) names.emplace_back(form.op);
  return names;
}

}  // namespace resnet

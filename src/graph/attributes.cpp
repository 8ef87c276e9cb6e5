#include "graph/attributes.h"

#include "base/format.h"

namespace resnet {
namespace {

class Text {
 public:
  void size(const char* name, Size2 value, int64_t usual) {
    if (value == Size2{usual, usual}) return;
    add(value.h == value.w ? fmt::format("{}={}", name, value.h) : fmt::format("{}={}x{}", name, value.h, value.w));
  }
  void flag(const char* name, bool value) {
    if (value) add(name);
  }
  template <class T>
  void value(const char* name, const T& value, const T& usual) {
    if (!(value == usual)) add(fmt::format("{}={}", name, value));
  }
  void add(const std::string& part) { text_ += (text_.empty() ? "" : " ") + part; }
  std::string str() const { return text_; }

 private:
  std::string text_;
};

struct Printer {
  Text& t;
  void operator()(const NoAttrs&) const {}
  void operator()(const Conv2dAttrs& a) const {
    t.size("stride", a.stride, 1);
    t.size("pad", a.pad, 0);
    t.size("dilation", a.dilation, 1);
    t.value("groups", a.groups, int64_t{1});
    t.flag("bias", a.bias);
    t.flag("residual", a.residual);
    t.flag("relu", a.relu);
  }
  void operator()(const Conv2dGradAttrs& a) const {
    (*this)(a.conv);
    t.add("shape=" + a.shape.str());
  }
  void operator()(const BatchNormAttrs& a) const {
    t.value("epsilon", a.epsilon, 1e-5);
    t.flag("training", a.training);
    t.flag("residual", a.residual);
    t.flag("relu", a.relu);
  }
  void operator()(const PoolAttrs& a) const {
    t.size("kernel", a.kernel, 1);
    t.size("stride", a.stride, 1);
    t.size("pad", a.pad, 0);
    t.flag("exclude_pad", !a.count_include_pad);
    t.flag("ceil", a.ceil_mode);
  }
  void operator()(const ConvPoolAttrs& a) const {
    (*this)(a.conv);
    t.add("pool:");
    (*this)(a.pool);
  }
  void operator()(const PoolGradAttrs& a) const {
    (*this)(a.pool);
    t.add("shape=" + a.shape.str());
  }
  void operator()(const ShapeAttrs& a) const { t.add("shape=" + a.shape.str()); }
  void operator()(const FillAttrs& a) const {
    t.add("type=" + a.type.str());
    t.add(fmt::format("value={}", a.value));
  }
  void operator()(const LinearAttrs& a) const { t.flag("bias", a.bias); }
  void operator()(const LossAttrs& a) const { t.value("label_smoothing", a.label_smoothing, 0.0); }
  void operator()(const SgdAttrs& a) const {
    t.value("momentum", a.momentum, 0.0);
    t.value("weight_decay", a.weight_decay, 0.0);
    t.flag("nesterov", a.nesterov);
  }
  void operator()(const RunningAverageAttrs& a) const {
    t.add(fmt::format("momentum={}", a.momentum));
    t.value("scale", a.scale, 1.0);
  }
  void operator()(const ChannelPadAttrs& a) const {
    t.value("before", a.before, int64_t{0});
    t.value("after", a.after, int64_t{0});
  }
  void operator()(const ChannelConvAttrs& a) const { t.flag("flip", a.flip); }
  void operator()(const QuantizedConv2dAttrs& a) const {
    (*this)(a.conv);
    (*this)(QuantizeAttrs{a.output});
  }
  void operator()(const QuantizeAttrs& a) const {
    if (a.output != DType::u8) t.add(name_of(a.output));
  }
};

}  // namespace

std::string to_string(const Attributes& attributes) {
  Text text;
  std::visit(Printer{text}, attributes);
  return text.str();
}

}  // namespace resnet

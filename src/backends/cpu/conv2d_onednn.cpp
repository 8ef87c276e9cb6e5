#include "backends/cpu/conv2d_onednn.h"

#include <cstring>

#include "backends/cpu/onednn.h"
#include "base/align.h"

namespace resnet::cpu {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;

memory::desc activation_desc(const ValueInfo& value) {
  const Tag tag = value.layout.kind == Layout::Kind::plain ? Tag::nchw
                  : value.layout.block == 16               ? Tag::nChw16c
                                                           : Tag::nChw8c;
  return {value.type.shape.dims(), memory::data_type::f32, tag};
}

bool is_winograd(const memory::desc& desc) { return desc.data.format_kind == dnnl_format_kind_wino; }

/// The weights as stored; grouped ones are described after unblocking, as goihw.
memory::desc weight_desc(const ValueInfo& value, int64_t groups) {
  const Shape& w = value.type.shape;
  if (groups > 1) return {{groups, w[0] / groups, w[1], w[2], w[3]}, memory::data_type::f32, Tag::goihw};
  const Tag tag = value.layout.kind == Layout::Kind::plain ? Tag::oihw
                  : value.layout.block == 16               ? Tag::OIhw16i16o
                                                           : Tag::OIhw8i8o;
  return {w.dims(), memory::data_type::f32, tag};
}

memory::desc any_layout(const memory::desc& desc) { return {desc.dims(), memory::data_type::f32, Tag::any}; }

/// One operand: where the caller has it, and what the primitive reads or writes.
struct Operand {
  memory user;
  memory inner;  ///< the same object as `user` unless converted
  bool converted = false;
  size_t offset = 0;  ///< of inner, in scratch

  void init(const memory::desc& user_desc, const memory::desc& inner_desc) {
    user = memory(user_desc, engine(), nullptr);
    converted = user_desc != inner_desc;
    inner = converted ? memory(inner_desc, engine(), nullptr) : user;
  }

  /// For one that is converted in every run.
  void prepare(bool is_result) {
    if (!converted) return;
    const memory& from = is_result ? inner : user;
    const memory& into = is_result ? user : inner;
    dnnl::primitive_attr attr = scratchpad_from_user();
    const dnnl::reorder::primitive_desc pd(engine(), from.get_desc(), engine(), into.get_desc(), attr);
    check(pd.scratchpad_desc().get_size() == 0, "onednn: a reorder wants scratch");
    reorder_ = dnnl::reorder(pd);
    arguments_.add(DNNL_ARG_FROM, from);
    arguments_.add(DNNL_ARG_TO, into);
  }

  /// user -> inner for inputs, inner -> user for the result.
  void convert() const {
    if (converted) arguments_.execute(reorder_);
  }

 private:
  dnnl::reorder reorder_;
  PrimitiveArguments arguments_;
};

class OnednnConvolution : public Kernel {
 public:
  OnednnConvolution(const ConvProblem& problem, const CpuContext& context) : problem_(problem), context_(context) {}

  /// False when oneDNN has no implementation.
  bool build(OnednnAlgorithm algorithm) {
    const memory::desc x = activation_desc(problem_.x_info);
    const memory::desc w = weight_desc(problem_.w_info, problem_.attrs.groups);
    const memory::desc y = activation_desc(problem_.y_info);
    // Exact layouts first, then free weights (small next to the activations), then free everything.
    for (int freedom = 0; freedom < 4; ++freedom) {
      const memory::desc try_x = freedom >= 2 ? any_layout(x) : x;
      const memory::desc try_w = freedom >= 1 ? any_layout(w) : w;
      const memory::desc try_y = freedom >= 3 ? any_layout(y) : y;
      if (!possible([&] { return create(algorithm, try_x, try_w, try_y); })) continue;
      const bool jit = info_.find("jit") != std::string::npos;
      if (!jit && freedom < 3) continue;
      return possible([&] {
        finish(x, w, y);
        return true;
      });
    }
    return false;
  }

  size_t scratch_bytes() const override { return scratch_bytes_; }
  /// Constant weights in the form that the primitive wants.
  std::optional<Packing> packing() const override {
    if (!packs_weights_) return std::nullopt;
    return Packing{.input = 1, .form = form_of(w_.inner.get_desc()), .bytes = align_up(w_.inner.get_desc().get_size())};
  }
  void pack(const void* weights, void* packed) override {
    use_threads(context_.threads);
    std::vector<float> plain(unblocked_bytes_ / sizeof(float));
    if (unblocked_bytes_ > 0) {
      context_.simd.weights_to_plain(weight_layout(weights, plain.data()));
      weights = plain.data();
    }
    if (!w_.converted) {
      std::memcpy(packed, weights, w_.inner.get_desc().get_size());
      return;
    }
    // Made here and gone afterwards: the reorder into Winograd's form has memory of its own, as much as the weights'.
    memory from(w_.user.get_desc(), engine(), const_cast<void*>(weights));
    memory into(w_.inner.get_desc(), engine(), packed);
    const bool packed_it = possible([&] {
      dnnl::reorder(from, into).execute(stream(), from, into);
      stream().wait();
      return true;
    });
    check(packed_it, "onednn: weights that cannot be packed");
  }

  std::string algorithm() const override {
    std::string text = "onednn " + info_;
    for (const auto& [operand, name] : {std::pair{&x_, " +x"}, std::pair{&w_, " +w"}, std::pair{&y_, " +y"}}) {
      if (operand->converted) text += name;
    }
    return text;
  }

  void run(const KernelCall& call) override {
    use_threads(context_.threads);
    auto* scratch = static_cast<std::byte*>(call.scratch);
    scratchpad_.set_data_handle(scratch);
    const bool forward = problem_.pass == ConvPass::forward;
    const bool weight_grad = problem_.pass == ConvPass::weight_grad;
    const void* x = problem_.pass == ConvPass::input_grad ? call.out[0] : call.in[0];
    const void* y = forward ? call.out[0] : weight_grad ? call.in[1] : call.in[0];
    const void* w = weight_grad ? call.out[0] : call.in[1];
    const size_t residual = problem_.attrs.bias ? 3 : 2;
    if (problem_.plain_residual) {
      context_.simd.to_blocked({.size = map_size(problem_.y),
                                .from = static_cast<const float*>(call.in[residual]),
                                .to = static_cast<float*>(call.out[0]),
                                .threads = context_.threads});
    } else if (forward && problem_.attrs.residual && call.out[0] != call.in[residual]) {
      std::memcpy(call.out[0], call.in[residual], storage_bytes(problem_.y_info.type, problem_.y_info.layout));
    }
    if (forward && problem_.attrs.bias) bias_.set_data_handle(const_cast<void*>(call.in[2]));
    bind(x_, x, scratch);
    bind(y_, y, scratch);
    if (packs_weights_) {
      w_.inner.set_data_handle(const_cast<void*>(call.packed));
    } else {
      bind_weights(w, scratch);
    }

    if (problem_.pass != ConvPass::input_grad) x_.convert();
    if (!weight_grad && !packs_weights_) convert_weights(w, scratch);
    if (!forward) y_.convert();
    if (residual_in_) residual_arguments_.execute(residual_in_);
    arguments_.execute(primitive_);
    if (problem_.pass == ConvPass::input_grad) x_.convert();
    if (forward) y_.convert();
    if (weight_grad) {
      w_.convert();
      if (unblocked_bytes_ > 0) reblock_weights(w, scratch);
    }
    stream().wait();
  }

 private:
  /// False when oneDNN has no implementation; throws ResourceError when memory does not suffice.
  template <class Make>
  bool possible(const Make& make) const {
    try {
      return make();
    } catch (const dnnl::error& error) {
      if (error.status == dnnl_out_of_memory)
        throw ResourceError(ExitCode::limit,
                            "memory: not enough for a convolution of {}; try a smaller batch or image size",
                            problem_.x.str());
      return false;
    }
  }

  bool create(OnednnAlgorithm algorithm, const memory::desc& x, const memory::desc& w, const memory::desc& y) {
    const Conv2dAttrs& a = problem_.attrs;
    const auto kind = algorithm == OnednnAlgorithm::winograd ? dnnl::algorithm::convolution_winograd
                                                             : dnnl::algorithm::convolution_direct;
    const memory::dims strides{a.stride.h, a.stride.w};
    const memory::dims dilates{a.dilation.h - 1, a.dilation.w - 1};
    const memory::dims pad{a.pad.h, a.pad.w};
    // oneDNN wants the right padding that its output size follows from; the floor may leave some out.
    auto right = [&](int axis, int64_t stride, int64_t dilation, int64_t before) {
      const int64_t reach = (problem_.y[axis] - 1) * stride + dilation * (problem_.w[axis] - 1) + 1;
      return reach - problem_.x[axis] - before;
    };
    const memory::dims pad_right{right(2, a.stride.h, a.dilation.h, a.pad.h),
                                 right(3, a.stride.w, a.dilation.w, a.pad.w)};
    dnnl::primitive_attr attr = scratchpad_from_user();
    if (problem_.pass == ConvPass::forward) {
      dnnl::post_ops ops;
      if (a.residual) ops.append_sum();
      if (a.relu) ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
      attr.set_post_ops(ops);
      const auto prop =
          problem_.constant_weights ? dnnl::prop_kind::forward_inference : dnnl::prop_kind::forward_training;
      const memory::desc bias({problem_.w[0]}, memory::data_type::f32, Tag::a);
      const auto desc =
          a.bias ? dnnl::convolution_forward::desc(prop, kind, x, w, bias, y, strides, dilates, pad, pad_right)
                 : dnnl::convolution_forward::desc(prop, kind, x, w, y, strides, dilates, pad, pad_right);
      const dnnl::convolution_forward::primitive_desc pd(desc, attr, engine(), true);
      if (!pd) return false;
      take(pd, pd.src_desc(), pd.weights_desc(), pd.dst_desc());
      primitive_ = dnnl::convolution_forward(pd);
      return true;
    }
    // The gradients want a forward hint; its layouts are free, as only its geometry matters.
    const auto forward =
        dnnl::convolution_forward::desc(dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct,
                                        any_layout(x), any_layout(w), any_layout(y), strides, dilates, pad, pad_right);
    const dnnl::convolution_forward::primitive_desc hint(forward, engine(), true);
    if (!hint) return false;
    if (problem_.pass == ConvPass::input_grad) {
      const dnnl::convolution_backward_data::desc desc(kind, x, w, y, strides, dilates, pad, pad_right);
      const dnnl::convolution_backward_data::primitive_desc pd(desc, attr, engine(), hint, true);
      if (!pd) return false;
      take(pd, pd.diff_src_desc(), pd.weights_desc(), pd.diff_dst_desc());
      primitive_ = dnnl::convolution_backward_data(pd);
    } else {
      const dnnl::convolution_backward_weights::desc desc(kind, x, w, y, strides, dilates, pad, pad_right);
      const dnnl::convolution_backward_weights::primitive_desc pd(desc, attr, engine(), hint, true);
      if (!pd) return false;
      take(pd, pd.src_desc(), pd.diff_weights_desc(), pd.diff_dst_desc());
      primitive_ = dnnl::convolution_backward_weights(pd);
    }
    return true;
  }

  template <class PrimitiveDesc>
  void take(const PrimitiveDesc& pd, const memory::desc& x, const memory::desc& w, const memory::desc& y) {
    info_ = pd.impl_info_str();
    inner_x_ = x;
    inner_w_ = w;
    inner_y_ = y;
    scratchpad_ = memory(pd.scratchpad_desc(), engine(), nullptr);
    scratch_bytes_ = align_up(pd.scratchpad_desc().get_size());
  }

  void finish(const memory::desc& x, memory::desc w, const memory::desc& y) {
    check(!is_winograd(inner_w_) || problem_.constant_weights, "onednn: weights in Winograd's form that change");
    // Blocked weights that are grouped, or that oneDNN is to transform, are first unblocked to row-major.
    const bool blocked = problem_.w_info.layout.kind == Layout::Kind::weights;
    if (blocked && (problem_.attrs.groups > 1 || is_winograd(inner_w_))) {
      unblocked_bytes_ = align_up(static_cast<size_t>(problem_.w.elements()) * sizeof(float));
      if (is_winograd(inner_w_)) w = {problem_.w.dims(), memory::data_type::f32, Tag::oihw};
    }
    x_.init(x, inner_x_);
    w_.init(w, inner_w_);
    y_.init(y, inner_y_);
    packs_weights_ = problem_.constant_weights && (w_.converted || unblocked_bytes_ > 0);
    x_.prepare(problem_.pass == ConvPass::input_grad);
    if (!packs_weights_) {
      w_.prepare(problem_.pass == ConvPass::weight_grad);
    } else if (w_.converted) {
      static_cast<void>(dnnl::reorder::primitive_desc(engine(), w, engine(), inner_w_));  // throws where pack() would
    }
    y_.prepare(problem_.pass == ConvPass::forward);
    if (problem_.attrs.residual && y_.converted) {
      // The result starts from the residual, which must come in through the conversion by which the result goes out.
      residual_in_ = dnnl::reorder(dnnl::reorder::primitive_desc(engine(), y, engine(), inner_y_));
      residual_arguments_.add(DNNL_ARG_FROM, y_.user);
      residual_arguments_.add(DNNL_ARG_TO, y_.inner);
    }
    auto reserve = [&](Operand& operand) {
      if (!operand.converted) return;
      operand.offset = scratch_bytes_;
      scratch_bytes_ += align_up(operand.inner.get_desc().get_size());
    };
    reserve(x_);
    reserve(y_);
    if (!packs_weights_) {
      unblocked_offset_ = scratch_bytes_;
      scratch_bytes_ += unblocked_bytes_;
      reserve(w_);
    }
    const bool forward = problem_.pass == ConvPass::forward;
    arguments_.add(problem_.pass == ConvPass::input_grad ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, x_.inner);
    arguments_.add(problem_.pass == ConvPass::weight_grad ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS, w_.inner);
    arguments_.add(forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, y_.inner);
    if (forward && problem_.attrs.bias) {
      bias_ = memory({{problem_.w[0]}, memory::data_type::f32, Tag::a}, engine(), nullptr);
      arguments_.add(DNNL_ARG_BIAS, bias_);
    }
    arguments_.add(DNNL_ARG_SCRATCHPAD, scratchpad_);
  }

  static void bind(Operand& operand, const void* user, std::byte* scratch) {
    operand.user.set_data_handle(const_cast<void*>(user));
    if (operand.converted) operand.inner.set_data_handle(scratch + operand.offset);
  }

  void bind_weights(const void* w, std::byte* scratch) {
    w_.user.set_data_handle(unblocked_bytes_ > 0 ? scratch + unblocked_offset_ : const_cast<void*>(w));
    if (w_.converted) w_.inner.set_data_handle(scratch + w_.offset);
  }

  void convert_weights(const void* w, std::byte* scratch) {
    if (unblocked_bytes_ > 0) context_.simd.weights_to_plain(weight_layout(w, scratch + unblocked_offset_));
    w_.convert();
  }

  void reblock_weights(const void* w, std::byte* scratch) {
    context_.simd.weights_to_blocked(weight_layout(scratch + unblocked_offset_, const_cast<void*>(w)));
  }

  /// Tells two orders of weights apart: dimensions, padding, blocks and strides; of those for Winograd, their own.
  static std::string form_of(const memory::desc& desc) {
    const dnnl_memory_desc_t& d = desc.data;
    std::string text = "onednn";
    if (is_winograd(desc)) {
      const dnnl_wino_desc_t& w = d.format_desc.wino_desc;
      return fmt::format("onednn winograd {} r {} alpha {} ic {} oc {} blocks {} {} {} {} adjust {} bytes {}",
                         static_cast<int>(w.wino_format), w.r, w.alpha, w.ic, w.oc, w.ic_block, w.oc_block, w.ic2_block,
                         w.oc2_block, w.adj_scale, w.size);
    }
    check(d.format_kind == dnnl_blocked, "onednn: weights in a format without a name");
    for (int i = 0; i < d.ndims; ++i) {
      text += fmt::format(" {}/{}:{}", d.dims[i], d.padded_dims[i], d.format_desc.blocking.strides[i]);
    }
    for (int i = 0; i < d.format_desc.blocking.inner_nblks; ++i) {
      text += fmt::format(" {}x{}", d.format_desc.blocking.inner_idxs[i], d.format_desc.blocking.inner_blks[i]);
    }
    return text;
  }

  simd::WeightLayout weight_layout(const void* from, void* to) const {
    return {.O = problem_.w[0],
            .I = problem_.w[1],
            .H = problem_.w[2],
            .W = problem_.w[3],
            .from = static_cast<const float*>(from),
            .to = static_cast<float*>(to),
            .threads = context_.threads};
  }

  ConvProblem problem_;
  CpuContext context_;
  std::string info_;
  memory::desc inner_x_, inner_w_, inner_y_;
  Operand x_, w_, y_;
  dnnl::reorder residual_in_;  ///< empty unless a residual is converted
  PrimitiveArguments residual_arguments_;
  memory bias_, scratchpad_;
  dnnl::primitive primitive_;
  PrimitiveArguments arguments_;
  size_t scratch_bytes_ = 0;
  size_t unblocked_bytes_ = 0;
  size_t unblocked_offset_ = 0;
  bool packs_weights_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_onednn_convolution(const ConvProblem& problem, OnednnAlgorithm algorithm,
                                                const CpuContext& context) {
  auto kernel = std::make_unique<OnednnConvolution>(problem, context);
  if (!kernel->build(algorithm)) return nullptr;
  return kernel;
}

}  // namespace resnet::cpu

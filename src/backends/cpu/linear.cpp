#include "backends/cpu/kernels.h"
#include "backends/cpu/onednn.h"

namespace resnet::cpu {
namespace {

using dnnl::memory;

/// C[m,n] = A[m,k] * B[k,n] (+ bias[n]); A and B may be given transposed in memory.
struct Matmul {
  int64_t m, n, k;
  bool a_transposed, b_transposed, bias;
};

class MatmulKernel : public Kernel {
 public:
  MatmulKernel(const Matmul& p, int threads) : threads_(threads) {
    using Tag = memory::format_tag;
    const memory::desc a({p.m, p.k}, memory::data_type::f32, p.a_transposed ? Tag::ba : Tag::ab);
    const memory::desc b({p.k, p.n}, memory::data_type::f32, p.b_transposed ? Tag::ba : Tag::ab);
    const memory::desc c({p.m, p.n}, memory::data_type::f32, Tag::ab);
    const memory::desc bias({1, p.n}, memory::data_type::f32, Tag::ab);
    const dnnl::matmul::desc desc = p.bias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
    pd_ = dnnl::matmul::primitive_desc(desc, scratchpad_from_user(), engine());
    primitive_ = dnnl::matmul(pd_);
    a_ = memory(a, engine(), nullptr);
    b_ = memory(b, engine(), nullptr);
    c_ = memory(c, engine(), nullptr);
    scratch_ = memory(pd_.scratchpad_desc(), engine(), nullptr);
    arguments_.add(DNNL_ARG_SRC, a_);
    arguments_.add(DNNL_ARG_WEIGHTS, b_);
    arguments_.add(DNNL_ARG_DST, c_);
    arguments_.add(DNNL_ARG_SCRATCHPAD, scratch_);
    if (p.bias) {
      bias_ = memory(bias, engine(), nullptr);
      arguments_.add(DNNL_ARG_BIAS, bias_);
    }
  }

  size_t scratch_bytes() const override { return pd_.scratchpad_desc().get_size(); }
  std::string algorithm() const override { return std::string("onednn ") + pd_.impl_info_str(); }
  void run(const KernelCall& call) override {
    a_.set_data_handle(const_cast<void*>(call.in[0]));
    b_.set_data_handle(const_cast<void*>(call.in[1]));
    if (call.in.size() > 2) bias_.set_data_handle(const_cast<void*>(call.in[2]));
    c_.set_data_handle(call.out[0]);
    scratch_.set_data_handle(call.scratch);
    use_threads(threads_);
    arguments_.execute(primitive_);
    stream().wait();
  }

 private:
  dnnl::matmul::primitive_desc pd_;
  dnnl::matmul primitive_;
  memory a_, b_, c_, bias_, scratch_;
  PrimitiveArguments arguments_;
  int threads_;
};

/// Swaps the two inputs of a product: dw = dy^T x comes as (x, dy).
class SwappedMatmulKernel : public MatmulKernel {
 public:
  using MatmulKernel::MatmulKernel;
  void run(const KernelCall& call) override {
    const void* in[] = {call.in[1], call.in[0]};
    MatmulKernel::run({in, call.out, call.scratch});
  }
};

}  // namespace

std::unique_ptr<Kernel> make_linear(const NodeRequest& request, CpuContext& context) {
  const Shape& x = request.in[0].type.shape;
  const Shape& w = request.in[1].type.shape;
  const Matmul product{
      .m = x[0], .n = w[0], .k = x[1], .a_transposed = false, .b_transposed = true, .bias = request.in.size() > 2};
  return std::make_unique<MatmulKernel>(product, context.threads);
}

std::unique_ptr<Kernel> make_linear_input_grad(const NodeRequest& request, CpuContext& context) {
  const Shape& dy = request.in[0].type.shape;
  const Shape& w = request.in[1].type.shape;
  const Matmul product{.m = dy[0], .n = w[1], .k = dy[1], .a_transposed = false, .b_transposed = false, .bias = false};
  return std::make_unique<MatmulKernel>(product, context.threads);
}

std::unique_ptr<Kernel> make_linear_weight_grad(const NodeRequest& request, CpuContext& context) {
  const Shape& x = request.in[0].type.shape;
  const Shape& dy = request.in[1].type.shape;
  const Matmul product{.m = dy[1], .n = x[1], .k = x[0], .a_transposed = true, .b_transposed = false, .bias = false};
  return std::make_unique<SwappedMatmulKernel>(product, context.threads);
}

}  // namespace resnet::cpu

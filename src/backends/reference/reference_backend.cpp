#include "backends/reference/reference_backend.h"

namespace resnet {
namespace {

class ReferenceKernel : public Kernel {
 public:
  explicit ReferenceKernel(const NodeRequest& request) : op_(request.op), attributes_(request.attributes) {
    for (const ValueInfo& value : request.in) in_types_.push_back(value.type);
    for (const ValueInfo& value : request.out) out_types_.push_back(value.type);
    for (const TensorType& type : in_types_) in_.push_back({&type, nullptr});
    for (const TensorType& type : out_types_) out_.push_back({&type, nullptr});
  }

  std::string algorithm() const override { return "reference loops"; }

  void run(const KernelCall& call) override {
    for (size_t i = 0; i < in_.size(); ++i) in_[i].data = call.in[i];
    for (size_t i = 0; i < out_.size(); ++i) out_[i].data = call.out[i];
    op_.ref(RefCall{attributes_, in_, out_});
  }

 private:
  const OpDef& op_;
  Attributes attributes_;
  std::vector<TensorType> in_types_, out_types_;
  std::vector<ConstView> in_;
  std::vector<View> out_;
};

class ReferenceBackend : public Backend {
 public:
  std::string name() const override { return "reference"; }
  std::string identity() const override { return name(); }
  Support supports(const NodeRequest&) const override { return Support::yes(); }
  Layout layout(const TensorType&, const ValueRole&) const override { return {}; }
  std::unique_ptr<Kernel> prepare(const NodeRequest& request) override {
    return std::make_unique<ReferenceKernel>(request);
  }
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend() { return std::make_unique<ReferenceBackend>(); }

}  // namespace resnet

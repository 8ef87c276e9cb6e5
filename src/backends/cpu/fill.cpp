#include <algorithm>

#include "backends/cpu/kernels.h"

namespace resnet::cpu {

std::unique_ptr<Kernel> make_fill(const NodeRequest& request, CpuContext&) {
  const auto attrs = std::get<FillAttrs>(request.attributes);
  const int64_t n = storage_elements(request.out[0].type.shape, request.out[0].layout);
  return std::make_unique<SimdKernel>(
      [=](const KernelCall& call) { std::fill_n(output(call, 0), n, static_cast<float>(attrs.value)); });
}

}  // namespace resnet::cpu

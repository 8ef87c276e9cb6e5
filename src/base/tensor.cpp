#include "base/tensor.h"

namespace resnet {

Tensor convert(const Tensor& tensor, DType dtype) {
  if (tensor.dtype() == dtype) return tensor;
  Tensor out(dtype, tensor.shape());
  with_float(tensor.dtype(), [&](auto from) {
    with_float(dtype, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      auto source = tensor.as<From>();
      auto target = out.as<To>();
      for (size_t i = 0; i < source.size(); ++i) target[i] = static_cast<To>(source[i]);
    });
  });
  return out;
}

}  // namespace resnet

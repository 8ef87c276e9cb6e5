#pragma once
// The oracle: every op's own reference loops on row-major buffers, one thread, f32 or f64.

#include <memory>

#include "plan/backend.h"

namespace resnet {

std::unique_ptr<Backend> make_reference_backend();

}  // namespace resnet

#pragma once
// The one place that names {fmt}: GCC 12 has no <format>.
#include <fmt/core.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

namespace resnet {
using fmt::format;
}

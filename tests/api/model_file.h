#pragma once
// For the test that sees the installed headers alone, whose names are those of the inside too.

#include <cstdint>
#include <string>

namespace resnet_tests {

/// Writes small_model(seed) (serve/small_model.h): images 3x20x20, classes ant, bee, cat, dog, elk.
void write_model_file(const std::string& path, uint64_t seed);

}  // namespace resnet_tests

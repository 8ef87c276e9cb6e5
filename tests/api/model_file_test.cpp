#include "api/model_file.h"

#include "serve/small_model.h"

void resnet_tests::write_model_file(const std::string& path, uint64_t seed) {
  resnet::write_safetensors(path, resnet::testing::small_model(seed));
}

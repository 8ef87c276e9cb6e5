#pragma once
// The content the checkpoint tests commit: a pure function of (step, salt), so that a reader knows what to expect.

#include <map>
#include <string>

#include "formats/checkpoint_directory.h"

namespace resnet {

inline std::map<std::string, std::string> checkpoint_bytes(int64_t step, const std::string& salt) {
  std::string model;
  while (model.size() < 3000) model += "weights of step " + std::to_string(step) + " " + salt + ";";
  return {{"model.safetensors", model}, {"state.json", "{\"step\": " + std::to_string(step) + "}"}};
}

inline CheckpointContent checkpoint_content(int64_t step, const std::string& salt) {
  CheckpointContent content{.step = step, .files = {}, .keep = 2};
  for (const auto& [name, bytes] : checkpoint_bytes(step, salt)) {
    content.files[name] = [text = bytes](ByteSink& sink) {  // in two writes: one may fail after the other
      sink.write(std::string_view(text).substr(0, text.size() / 2));
      sink.write(std::string_view(text).substr(text.size() / 2));
    };
  }
  return content;
}

}  // namespace resnet

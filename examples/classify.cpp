// Classifies an image with a model file:  classify MODEL.safetensors IMAGE
// Built against the installed library, as any program would be: see docs/library.md and this folder's CMakeLists.txt.
#include <iostream>
#include <resnet/resnet.hpp>

int main(int argc, char** argv) try {
  if (argc != 3) throw resnet::Error(RESNET_USAGE, "usage: classify MODEL.safetensors IMAGE");
  resnet::Classifier classifier(argv[1]);
  for (const resnet::Prediction& p : classifier.classify(argv[2])) std::cout << p.probability << ' ' << p.name << '\n';
} catch (const resnet::Error& error) {
  std::cerr << "classify: error: " << error.what() << '\n';
  return error.code();
}

// The lecture's claims in a few lines each, on real images and at sizes that take seconds: `resnet lab` measures them
// in full. A claim that does not hold ends the program with code 1.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>

#include "base/error.h"
#include "lab/common.h"
#include "lab/probe.h"
#include "lab/specimen.h"

using namespace resnet;

namespace {

const Dataset& images() {
  static const Dataset data = load_dataset("fashion-mnist", Split::train);
  return data;
}

Specimen make(const std::string& model, const ModelOptions& options = {}) {
  return Specimen(images(), {.model = model, .model_options = options, .batch_size = 16, .limit = 1024});
}

/// Largest difference between the logits of two nets on eight images.
double difference(Specimen& a, Specimen& b) {
  const Tensor x = a.logits(images(), 8), y = b.logits(images(), 8);
  double largest = 0;
  for (size_t i = 0; i < x.as<float>().size(); ++i) {
    largest = std::max<double>(largest, std::abs(x.as<float>()[i] - y.as<float>()[i]));
  }
  return largest;
}

/// L1, nested classes of functions; L2, x + g(x) with g = 0 is the identity: whatever the shallow net computes, the
/// deeper one with the same values computes too when the last gamma of each added block is 0.
void a_deeper_residual_net_contains_the_shallower_one() {
  for (const Kind kind : {Kind::residual, Kind::plain}) {
    Specimen shallow = make(cifar_name(kind, 8));
    shallow.logits(images(), 8);  // measures kernels, so that the deeper net takes the same
    Specimen deep = make(cifar_name(kind, 14));
    const auto values = shallow.values();
    for (const auto& [name, value] : deep.values()) {
      if (const auto found = values.find(name); found != values.end()) {
        deep.set_value(name, found->second);
      } else if (name.ends_with("bn2.weight")) {
        deep.set_value(name, Tensor(value.type()));
      }
    }
    const double gap = difference(shallow, deep);
    std::printf("L1, L2  8 layers in 14, added blocks with gamma 0: %-8s logits differ by %g\n",
                kind == Kind::plain ? "plain" : "residual", gap);
    check((gap == 0) == (kind == Kind::residual), "the residual net, and it alone, is the shallower one");
  }
}

/// L3: a deep net learns when its blocks start as the identity. (1202 layers: `resnet lab depth`.)
void a_deep_residual_net_trains() {
  Specimen net = make("resnet110_cifar_a", {.zero_init_residual = true});
  double first = 0, last = 0;
  constexpr int kSteps = 30, kShown = 5;
  for (int i = 0; i < kSteps; ++i) {
    const double loss = net.train_step(0.05).loss / kShown;
    if (i < kShown) first += loss;
    if (i >= kSteps - kShown) last += loss;
  }
  std::printf("L3      110 layers: the loss goes from %.2f to %.2f in %d steps\n", first, last, kSteps);
  check(last < 0.9 * first, "110 layers should learn");
}

/// L4: in the plain net the gradient is a product of small numbers; through the shortcut it comes back whole.
void the_gradient_reaches_the_first_layer() {
  double ratio[2];
  for (const Kind kind : {Kind::plain, Kind::residual}) {
    Specimen net = make(cifar_name(kind, 56), {.batch_norm = false, .init = WeightInit::pytorch});
    ratio[kind == Kind::residual] = LayerProbe(net).measure().first_over_last();
  }
  std::printf("L4      56 layers, gradient of the first layer over the last's: %.1e plain, %.2f residual\n", ratio[0],
              ratio[1]);
  check(ratio[0] < 1e-6 && ratio[1] > 1e-2, "the plain net's gradient vanishes, the residual one's does not");

  Specimen net = make("resnet20_cifar_a");
  double worst = 0;
  for (const BlockGradient& b : BlockProbe(net).measure()) worst = std::max(worst, b.largest_gap / b.largest_total);
  std::printf("L4      through the shortcut + through the branch = whole gradient, but for %.0e of it\n", worst);
  check(worst < 1e-5, "the sum rule");
}

/// L5: the same block over linear layers.
void fully_connected_nets_have_residual_blocks_too() {
  double ratio[2];
  for (const Kind kind : {Kind::plain, Kind::residual}) {
    Specimen net = make(mlp_name(kind, 56), {.batch_norm = false, .init = WeightInit::pytorch});
    ratio[kind == Kind::residual] = LayerProbe(net).measure().first_over_last();
  }
  std::printf("L5      56 fully connected layers, the same ratio: %.1e plain, %.2f residual\n", ratio[0], ratio[1]);
  check(ratio[0] < 1e-6 && ratio[1] > 1e-2, "linear layers gain from shortcuts as convolutions do");
}

}  // namespace

int main() {
  try {
    a_deeper_residual_net_contains_the_shallower_one();
    a_deep_residual_net_trains();
    the_gradient_reaches_the_first_layer();
    fully_connected_nets_have_residual_blocks_too();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "example_claims: %s\n", error.what());
    return 1;
  }
}

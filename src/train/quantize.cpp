#include "train/quantize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "data/loader.h"
#include "ops/conv2d.h"
#include "runtime/backends.h"
#include "train/folded.h"
#include "train/inference.h"

namespace resnet {
namespace {

/// The distribution of one value's elements, over a range that an earlier look has found.
class Histogram {
 public:
  static constexpr size_t kBins = 4096;  // 16 for each of the 256 steps of the unclipped range

  void widen(std::span<const float> values) {
    for (const float v : values) {
      least_ = std::min(least_, v);
      largest_ = std::max(largest_, v);
      finite_ = finite_ && std::isfinite(v);
    }
  }
  bool finite() const { return finite_; }
  double least() const { return static_cast<double>(least_); }
  double largest() const { return static_cast<double>(largest_); }

  void count(std::span<const float> values) {
    counts_.resize(kBins);
    const float range = largest_ - least_;
    const float bins_per_unit = range > 0 ? static_cast<float>(kBins) / range : 0;
    for (const float v : values) {
      const auto bin = static_cast<int64_t>((v - least_) * bins_per_unit);
      ++counts_[static_cast<size_t>(std::clamp<int64_t>(bin, 0, kBins - 1))];
    }
  }

  /// f(middle of the bin, elements in it).
  template <class F>
  void each(F&& f) const {
    const double width = (largest() - least()) / static_cast<double>(kBins);
    for (size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] > 0) f(least() + (static_cast<double>(i) + 0.5) * width, static_cast<double>(counts_[i]));
    }
  }

 private:
  float least_ = 0, largest_ = 0;  ///< 0 is always inside: it must be a whole number of steps
  bool finite_ = true;
  std::vector<int64_t> counts_;
};

/// Whole numbers low..high stand for q * scale, after `zero` is taken off.
struct Steps {
  double scale = 1;
  int zero = 0;
};

/// u8 from 0, or i8 about 0, or u8 with a zero.
enum class Range { positive, symmetric, any };

/// The steps for a range cut to `share` of what was seen.
Steps steps_of(const Histogram& h, Range range, double low_share, double high_share) {
  // A value that is always 0 may have any scale.
  const auto positive = [](double width) { return width > 0 && std::isfinite(width) ? width : 1.0; };
  switch (range) {
    case Range::positive: return {positive(h.largest() * high_share / 255), 0};
    case Range::symmetric: return {positive(std::max(h.largest() * high_share, -h.least() * low_share) / 127), 0};
    case Range::any: {
      const double low = h.least() * low_share;
      const double scale = positive((h.largest() * high_share - low) / 255);
      return {scale, static_cast<int>(std::clamp(std::nearbyint(-low / scale), 0.0, 255.0))};
    }
  }
  throw InternalError("quantize: unknown range");
}

double squared_error(const Histogram& h, Range range, const Steps& steps) {
  const double least = range == Range::symmetric ? -128 : 0, largest = range == Range::symmetric ? 127 : 255;
  double sum = 0;
  h.each([&](double x, double count) {
    const double q = std::clamp(std::nearbyint(x / steps.scale + steps.zero), least, largest);
    const double error = (q - steps.zero) * steps.scale - x;
    sum += count * error * error;
  });
  return sum;
}

Steps best_steps(const Histogram& h, Range range, const QuantizeOptions& options) {
  if (options.method == ClipMethod::percentile) {
    double total = 0;
    h.each([&](double, double count) { total += count; });
    // One side is cut, or both by half as much.
    const double outside = total * (1 - options.percentile / 100) / (range == Range::positive ? 1 : 2);
    double low = h.least(), high = h.largest(), below = 0, seen = 0;
    bool low_found = false;
    h.each([&](double x, double count) {
      if (!low_found && (below += count) > outside) low = x, low_found = true;
      if ((seen += count) <= total - outside) high = x;
    });
    const auto share = [](double cut, double whole) { return whole != 0 ? std::clamp(cut / whole, 0.0, 1.0) : 1.0; };
    return steps_of(h, range, share(low, h.least()), share(high, h.largest()));
  }
  Steps best = steps_of(h, range, 1, 1);
  double least_error = squared_error(h, range, best);
  for (int percent = 98; percent >= 20; percent -= 2) {
    const Steps steps = steps_of(h, range, percent / 100.0, percent / 100.0);
    if (const double error = squared_error(h, range, steps); error < least_error) {
      least_error = error;
      best = steps;
    }
  }
  return best;
}

/// The nearest whole number, halves to even, for |x| below 2^51: a sum whose last bit is worth one. Three instructions,
/// where the library's function is a call, and there are many weights.
double whole(double x) {
  constexpr double kLastBitIsOne = 0x1.8p52;
  return (x + kLastBitIsOne) - kLastBitIsOne;
}

/// One filter's weights: the scale whose rounding has the least squared error.
double best_weight_scale(std::span<const double> weights) {
  double largest = 0;
  for (const double w : weights) largest = std::max(largest, std::abs(w));
  if (!(largest > 0)) return 1;  // of nothing but zeros
  const auto error_of = [&](double scale) {
    const double per_step = 1 / scale;
    double sum = 0;
    for (const double w : weights) {
      const double error = std::clamp(whole(w * per_step), -127.0, 127.0) * scale - w;
      sum += error * error;
    }
    return sum;
  };
  double best = largest / 127, least_error = error_of(best);
  for (int percent = 96; percent >= 60; percent -= 4) {
    const double scale = largest * percent / 100.0 / 127;
    if (const double error = error_of(scale); error < least_error) {
      least_error = error;
      best = scale;
    }
  }
  // A file keeps it in f32, where a denormal could vanish.
  return std::max(best, static_cast<double>(std::numeric_limits<float>::min()));
}

/// `scale`, or as much more as it takes that no two neighbouring weights of one sign (channels 2i and 2i+1 at one place
/// of the filter, of which `area` lie between channels) come to more than 128 together. Then 255 times their sum fits
/// 16 bits, and AVX2 multiplies bytes exactly (pmaddubsw), with fewer instructions and half the memory of words. It
/// costs a fraction of a bit: 0.2 dB of the worst layers of ResNet-18 and -50.
double scale_for_pairs(std::span<const double> filter, int64_t area, double scale) {
  constexpr double kMost = 128;
  const auto channels = static_cast<int64_t>(filter.size()) / area;
  const auto tap = [&](int64_t i) {
    return i < channels * area ? filter[static_cast<size_t>(i % channels * area + i / channels)] : 0.0;
  };
  while (true) {
    double worst = 0;
    for (int64_t i = 0; i < channels * area; i += 2) {
      const double first = std::clamp(whole(tap(i) / scale), -127.0, 127.0);
      const double second = std::clamp(whole(tap(i + 1) / scale), -127.0, 127.0);
      if ((first > 0) == (second > 0)) worst = std::max(worst, std::abs(first + second));
    }
    if (worst <= kMost) return scale;
    scale *= 1.01 * std::max(1.0, (worst - 1) / kMost);
  }
}

/// What one look over the images found of a value.
struct Seen {
  Histogram histogram;
  std::vector<double> channel_sums;
  double per_channel = 0;  ///< elements
};

class Calibration {
 public:
  Calibration(const LoadedModel& model, const Dataset& images, const QuantizeOptions& options)
      : model_(model),
        spec_(find_model(model.description.architecture)),
        images_(images),
        options_(options),
        count_(std::min(options.images, images.count)),
        values_(model.values) {
    // ReLUs would make an ordinary number of what is none, and nothing in 8 bits can stand for it.
    for (const auto& [name, tensor] : values_) {
      if (tensor.dtype() != DType::f32) continue;
      for (const float v : tensor.as<float>()) {
        if (!std::isfinite(v))
          throw UserError(ExitCode::bad_data, "quantize: tensor '{}': holds {}; expected finite numbers",
                          escape_control(name), v);
      }
    }
    const int64_t size = model.description.preprocessing.image_size;
    spec_.input = {model.description.channels, size, size};
    quantization_.mean = model.description.preprocessing.mean;
    quantization_.std = model.description.preprocessing.std;
    const auto channels = static_cast<size_t>(model.description.channels);
    if (quantization_.mean.empty()) quantization_.mean.assign(channels, 0);
    if (quantization_.std.empty()) quantization_.std.assign(channels, 1);
    quantization_.method = options.method == ClipMethod::minimum_error
                               ? "minimum error"
                               : fmt::format("percentile {}", options.percentile);
    const auto graph = graph_of(1);
    for (const FoldedConvolution& f : folded_) add_folded(f, values_);
    for (const std::string& layer : quantizable_layers(*graph)) layers_.push_back(layer);
  }

  QuantizedModel run() {
    if (layers_.empty()) {
      throw UserError(ExitCode::refused,
                      "{}: has no convolution to quantise; expected a network of convolutions; nothing is gained by "
                      "8 bits here",
                      model_.description.architecture);
    }
    look();
    find_tensors();
    QuantizedModel result;
    result.layers = measure_layers();
    for (const LayerError& layer : result.layers) {
      if (layer.quantized) quantization_.layers.insert(layer.name);
    }
    if (quantization_.layers.empty()) {
      throw UserError(ExitCode::refused,
                      "quantize: every layer has less signal over error than --min-sqnr {} dB; expected a lower "
                      "one, or other calibration images",
                      options_.min_sqnr);
    }
    const auto graph = graph_of(1);
    for (const auto& [name, type] : quantize_graph(*graph, quantization_.layers).tensors) {
      const bool kept = type.dtype == DType::f32 && f32_tensors_.contains(name) &&
                        !quantization_.layers.contains(name.substr(0, name.rfind('.')));
      result.tensors[name] = kept                      ? f32_tensors_.at(name)
                             : tensors_.contains(name) ? tensors_.at(name)
                                                       : values_.at(name);
      check(result.tensors.at(name).type() == type, "quantize: a tensor of another type than the graph wants");
    }
    result.quantization = quantization_;
    result.unreadable = taken_.unreadable;
    result.first_unreadable = taken_.first_unreadable;
    return result;
  }

 private:
  std::unique_ptr<Graph> graph_of(int64_t batch) {
    auto graph = make_inference_graph(spec_, {.model = model_.description.options,
                                              .images = {batch, spec_.input[0], spec_.input[1], spec_.input[2]}});
    folded_ = run_inference_passes(*graph, before_quantization());
    return graph;
  }

  /// Images at a time: their values all stay in memory.
  int64_t batch_for(const std::map<std::string, Value>& taps) const {
    constexpr double kMostBytes = 400e6;
    double bytes = 1;
    for (const auto& [name, value] : taps) bytes += 4 * static_cast<double>(value.shape().elements());
    return std::clamp<int64_t>(static_cast<int64_t>(kMostBytes / bytes), 1, std::min<int64_t>(32, count_));
  }

  struct Taken {
    int64_t images = 0, unreadable = 0;
    std::string first_unreadable;
  };

  /// Calls f(program, images in the batch) over `count` images that can be read, drawn from all there are: folders give
  /// them class by class.
  template <class F>
  Taken over_images(Session& session, Program& program, int64_t batch, int64_t count, const char* what, F&& f) {
    for (const int state : program.plan().states) {
      const std::string& name = program.plan().buffers[static_cast<size_t>(state)].state;
      session.write_state(name, state_value(name));
    }
    Loader loader(images_, {.batch_size = batch,
                            .shuffle = true,
                            .workers = options_.workers,
                            .preprocessing = model_.description.preprocessing,
                            .on_bad_sample = BadSample::leave_out});
    Tensor whole(DType::f32, Shape{batch, spec_.input[0], spec_.input[1], spec_.input[2]});
    Taken taken;
    while (taken.images < count) {
      const Batch* part = loader.next();
      if (!part) break;
      if (taken.unreadable == 0 && !part->bad.empty()) taken.first_unreadable = part->bad[0].reason;
      taken.unreadable += static_cast<int64_t>(part->bad.size());
      const int64_t n = std::min(part->size(), count - taken.images);
      taken.images += n;
      if (options_.progress) options_.progress(what, taken.images, count);
      if (n == 0) continue;
      std::memcpy(whole.data(), part->images.data(), part->images.size_bytes());
      program.set_input("images", whole);
      program.run();
      f(program, n);
    }
    if (taken.images == 0) {
      throw UserError(ExitCode::bad_data, "{}: none of the {} images can be read; expected at least one: {}",
                      escape_control(images_.name), taken.unreadable, taken.first_unreadable);
    }
    return taken;
  }

  const Tensor& state_value(const std::string& name) {
    if (const auto found = derived_.find(name); found != derived_.end()) return found->second;
    const auto found = values_.find(name);
    check(found != values_.end(), "quantize: a state without a value");
    return found->second;
  }

  /// The range, distribution and channel means of every value that may become 8 bits.
  void look() {
    auto graph = graph_of(1);
    const int64_t batch = batch_for(calibrated_values(*graph));
    graph = graph_of(batch);
    std::vector<std::string> names;
    for (const auto& [name, value] : calibrated_values(*graph)) {
      if (graph->node(value).kind != NodeKind::op) {
        images_name_ = name;
      } else {
        graph->set_output("tap:" + name, value);
      }
      names.push_back(name);
    }
    Session session(make_backend("cpu", options_.threads, AlgorithmChoice::usual));
    Program& program = session.compile(std::move(graph));
    for (const bool counting : {false, true}) {
      taken_ = over_images(session, program, batch, count_, counting ? "distributions" : "ranges",
                           [&](const Program& p, int64_t n) {
                             for (const std::string& name : names) {
                               if (name != images_name_) observe(p.output("tap:" + name), n, counting, name);
                             }
                           });
    }
    quantization_.images = taken_.images;
  }

  void observe(const Tensor& value, int64_t n, bool counting, const std::string& name) {
    const Shape& shape = value.shape();
    const auto elements = static_cast<size_t>(value.elements() / shape[0] * n);
    const std::span<const float> all = value.as<float>().subspan(0, elements);
    Seen& seen = seen_[name];
    if (!counting) {
      seen.histogram.widen(all);
      if (!seen.histogram.finite()) {
        throw UserError(ExitCode::bad_data, "quantize: the results of '{}' are not finite; expected a model that works",
                        escape_control(name));
      }
      return;
    }
    seen.histogram.count(all);
    const auto channels = static_cast<size_t>(shape[1]);
    const size_t area = elements / static_cast<size_t>(n) / channels;
    seen.channel_sums.resize(channels);
    seen.per_channel += static_cast<double>(area) * static_cast<double>(n);
    for (size_t plane = 0; plane < static_cast<size_t>(n) * channels; ++plane) {
      const auto values = all.subspan(plane * area, area);
      seen.channel_sums[plane % channels] += std::accumulate(values.begin(), values.end(), 0.0);
    }
  }

  /// Scales of all values and both forms of each convolution's parameters.
  void find_tensors() {
    const auto graph = graph_of(1);
    const std::map<int32_t, std::string> names = value_names(*graph);
    const auto scalar = [](double value) {
      Tensor tensor(DType::f32, Shape{});
      tensor.as<float>()[0] =
          static_cast<float>(std::max(value, static_cast<double>(std::numeric_limits<float>::min())));
      return tensor;
    };
    for (const auto& [name, seen] : seen_) {
      const Steps steps =
          best_steps(seen.histogram, seen.histogram.least() < 0 ? Range::any : Range::positive, options_);
      tensors_[name + ".value_scale"] = scalar(steps.scale);
      Tensor zero(DType::u8, Shape{});
      zero.as<uint8_t>()[0] = static_cast<uint8_t>(steps.zero);
      tensors_[name + ".value_zero"] = std::move(zero);
    }
    for (const int32_t id : graph->live_nodes()) {
      const Node& node = graph->node(id);
      if (node.op != &kConv2d) continue;
      const std::string& name = names.at(id);
      const auto& attrs = std::get<Conv2dAttrs>(node.attributes);
      const Tensor& weight = values_.at(graph->node(node.inputs[1]).name);
      Tensor bias =
          attrs.bias ? values_.at(graph->node(node.inputs[2]).name) : Tensor(DType::f32, Shape{weight.shape()[0]});
      f32_tensors_[name + ".weight"] = weight;
      f32_tensors_[name + ".bias"] = bias;
      if (std::find(layers_.begin(), layers_.end(), name) == layers_.end()) continue;
      const Range range = attrs.relu ? Range::positive : Range::symmetric;
      tensors_[name + ".output_scale"] = scalar(best_steps(seen_.at(name).histogram, range, options_).scale);
      round_weights(name, weight, bias, names.at(node.inputs[0].node), attrs.groups, attrs.stride);
    }
  }

  /// NAME.weight, NAME.weight_scale and NAME.bias.
  void round_weights(const std::string& name, const Tensor& weight, Tensor bias, const std::string& input,
                     int64_t groups, Size2 stride) {
    const Shape& w = weight.shape();
    const int64_t area = w[2] * w[3];
    const bool pixels = input == images_name_ && !images_name_.empty();
    const bool by_winograd = w[2] == 3 && w[3] == 3 && stride == Size2{1, 1} && groups == 1;
    Tensor rounded(DType::i8, w), scales(DType::f32, Shape{w[0]});
    std::vector<double> filter(static_cast<size_t>(w[1] * area));
    for (int64_t k = 0; k < w[0]; ++k) {
      const auto at = static_cast<size_t>(k) * filter.size();
      for (size_t i = 0; i < filter.size(); ++i) {
        // Pixels come as 0 to 255: the preprocessing's division is the weights'.
        const double unit = pixels ? 255.0 * static_cast<double>(quantization_.std[i / static_cast<size_t>(area)]) : 1;
        filter[i] = static_cast<double>(weight.as<float>()[at + i]) / unit;
      }
      double best = best_weight_scale(filter);
      if (!by_winograd) best = scale_for_pairs(filter, area, best);
      const auto scale = static_cast<float>(best);
      scales.as<float>()[static_cast<size_t>(k)] = scale;
      double shift = 0;
      for (size_t i = 0; i < filter.size(); ++i) {
        const double q = std::clamp(whole(filter[i] / static_cast<double>(scale)), -127.0, 127.0);
        rounded.as<int8_t>()[at + i] = static_cast<int8_t>(q);
        if (pixels) continue;  // about their mean already
        const Seen& seen = seen_.at(input);
        const int64_t channel = k / (w[0] / groups) * w[1] + static_cast<int64_t>(i) / area;
        shift += (filter[i] - q * static_cast<double>(scale)) * seen.channel_sums[static_cast<size_t>(channel)] /
                 seen.per_channel;
      }
      float& b = bias.as<float>()[static_cast<size_t>(k)];
      b = static_cast<float>(static_cast<double>(b) + shift);
    }
    tensors_[name + ".weight"] = std::move(rounded);
    tensors_[name + ".weight_scale"] = std::move(scales);
    tensors_[name + ".bias"] = std::move(bias);
  }

  /// Each convolution from exact inputs: rounded, computed in 8 bits, rounded again.
  std::vector<LayerError> measure_layers() {
    const std::set<std::string> all(layers_.begin(), layers_.end());
    auto taps = [&](const QuantizedGraph& q) {
      std::map<std::string, Value> values;
      for (const auto& [name, value] : q.graph->outputs()) values[name] = value;
      return values;
    };
    QuantizedGraph q = quantize_graph(*graph_of(1), all, QuantizeMode::isolated);
    const int64_t batch = batch_for(taps(q));
    q = quantize_graph(*graph_of(batch), all, QuantizeMode::isolated);
    for (const DerivedState& state : q.derived) derived_[state.state] = derive(state, tensors_, quantization_);
    for (const std::string& layer : layers_) derived_[layer + ".weight@int8"] = tensors_.at(layer + ".weight");
    for (const auto& [name, tensor] : f32_tensors_) {
      if (!values_.contains(name) || !all.contains(name.substr(0, name.rfind('.')))) derived_.emplace(name, tensor);
    }
    Session session(make_backend("cpu", options_.threads, AlgorithmChoice::usual));
    Program& program = session.compile(std::move(q.graph));
    std::map<std::string, std::pair<double, double>> sums;  // of squares: signal, error
    constexpr int64_t kImages = 32;
    over_images(session, program, batch, std::min(count_, kImages), "layers", [&](const Program& p, int64_t n) {
      for (const std::string& layer : layers_) {
        const Tensor exact = p.output("f32:" + layer), rough = p.output("int8:" + layer);
        const auto elements = static_cast<size_t>(exact.elements() / exact.shape()[0] * n);
        auto& [signal, error] = sums[layer];
        for (size_t i = 0; i < elements; ++i) {
          const double x = static_cast<double>(exact.as<float>()[i]);
          const double d = static_cast<double>(rough.as<float>()[i]) - x;
          signal += x * x;
          error += d * d;
        }
      }
    });
    std::vector<LayerError> errors;
    for (const std::string& layer : layers_) {
      const auto [signal, error] = sums.at(layer);
      // Nothing but zeros is kept exactly.
      const double ratio = error > 0 ? signal / error : std::numeric_limits<double>::infinity();
      const double db = 10 * std::log10(ratio);
      errors.push_back({.name = layer, .sqnr_db = db, .quantized = db >= options_.min_sqnr});
    }
    return errors;
  }

  const LoadedModel& model_;
  ModelSpec spec_;
  const Dataset& images_;
  const QuantizeOptions& options_;
  int64_t count_;
  Taken taken_;                           ///< by look()
  std::map<std::string, Tensor> values_;  ///< the model's and the folded ones
  std::vector<FoldedConvolution> folded_;
  std::vector<std::string> layers_;  ///< that can be quantised
  Quantization quantization_;
  std::string images_name_;  ///< of the network's images, where a convolution reads them
  std::map<std::string, Seen> seen_;
  std::map<std::string, Tensor> tensors_;      ///< of 8-bit forms
  std::map<std::string, Tensor> f32_tensors_;  ///< of convolutions that stay, by the file's names
  std::map<std::string, Tensor> derived_;      ///< states of the graph that measures layers
};

}  // namespace

QuantizedModel quantize_model(const LoadedModel& model, const Dataset& images, const QuantizeOptions& options) {
  check(model.dtype == DType::f32 && !model.quantization, "quantize_model: the model is not in f32");
  return Calibration(model, images, options).run();
}

}  // namespace resnet

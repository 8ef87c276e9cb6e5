#include "train/quantized_model.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "train/inference.h"

namespace resnet {
namespace {

using nlohmann::json;

double pixel_zero(const Quantization& q, int64_t channel) {
  return 255.0 * static_cast<double>(q.mean[static_cast<size_t>(channel)]);
}

const Tensor& find(const std::map<std::string, Tensor>& tensors, const std::string& name) {
  const auto found = tensors.find(name);
  check(found != tensors.end(), "quantized model: a state without its tensor");
  return found->second;
}

/// Of the real numbers that the value's whole numbers stand for. Pixels are taken as they come, 0 to 255.
double scale_of(const ActivationScale& a, const std::map<std::string, Tensor>& tensors) {
  switch (a.kind) {
    case ActivationScale::Kind::output:
      return static_cast<double>(find(tensors, a.name + ".output_scale").as<float>()[0]);
    case ActivationScale::Kind::value:
      return static_cast<double>(find(tensors, a.name + ".value_scale").as<float>()[0]);
    case ActivationScale::Kind::pixels: return 1;
  }
  throw InternalError("quantized model: unknown kind of scale");
}

double zero_of(const ActivationScale& a, int64_t channel, const std::map<std::string, Tensor>& tensors,
               const Quantization& q) {
  switch (a.kind) {
    case ActivationScale::Kind::output: return 0;
    case ActivationScale::Kind::value:
      return static_cast<double>(find(tensors, a.name + ".value_zero").as<uint8_t>()[0]);
    case ActivationScale::Kind::pixels: return pixel_zero(q, channel);
  }
  throw InternalError("quantized model: unknown kind of scale");
}

/// (bias - scale_x * scale_w * sum of zero * q_w) / scale_y - residual's zero * residual_multiplier.
Tensor offset_of(const DerivedState& s, const std::map<std::string, Tensor>& tensors, const Quantization& q) {
  const Tensor& weight = find(tensors, s.layer + ".weight");
  const Tensor& weight_scale = find(tensors, s.layer + ".weight_scale");
  const Tensor& bias = find(tensors, s.layer + ".bias");
  const double output = static_cast<double>(find(tensors, s.layer + ".output_scale").as<float>()[0]);
  const double input = scale_of(s.of, tensors);
  const Shape& w = weight.shape();
  const int64_t area = w[2] * w[3];
  Tensor offset(s.type);
  for (int64_t k = 0; k < w[0]; ++k) {
    double zeros = 0;
    for (int64_t c = 0; c < w[1]; ++c) {
      int64_t sum = 0;
      for (int64_t i = 0; i < area; ++i) sum += weight.as<int8_t>()[static_cast<size_t>((k * w[1] + c) * area + i)];
      zeros += zero_of(s.of, c, tensors, q) * static_cast<double>(sum);
    }
    const auto at = static_cast<size_t>(k);
    double value =
        static_cast<double>(bias.as<float>()[at]) - input * static_cast<double>(weight_scale.as<float>()[at]) * zeros;
    if (s.residual) value -= zero_of(*s.residual, 0, tensors, q) * scale_of(*s.residual, tensors);
    offset.as<float>()[at] = static_cast<float>(value / output);
  }
  return offset;
}

}  // namespace

void require_not_quantized(const WeightsFile& file) {
  if (!file.metadata().contains(kQuantizationKey)) return;
  throw UserError(
      ExitCode::refused,
      "{}: holds 8-bit weights (resnet quantize); expected weights in f32; take the model that it was made from",
      file.path());
}

std::string to_json(const Quantization& q) {
  return json{{"scheme", "int8"}, {"layers", q.layers}, {"method", q.method}, {"images", q.images}}.dump(
      -1, ' ', false, json::error_handler_t::replace);
}

Quantization parse_quantization(const std::string& path, const std::string& text, int64_t channels,
                                const std::vector<float>& mean, const std::vector<float>& std) {
  const auto wrong = [&](const char* what) {
    return bad_data(path, 8, kQuantizationKey,
                    "{}; expected JSON {{\"scheme\": \"int8\", \"layers\": [names]}} as resnet quantize writes it",
                    what);
  };
  const json value = json::parse(text, nullptr, false);
  if (!value.is_object()) throw wrong("no JSON object");
  if (!value.contains("scheme") || value["scheme"] != "int8") throw wrong("another scheme than int8");
  if (!value.contains("layers") || !value["layers"].is_array() || value["layers"].empty()) throw wrong("no layers");
  Quantization q;
  for (const json& layer : value["layers"]) {
    if (!layer.is_string()) throw wrong("a layer that is no name");
    q.layers.insert(layer.get<std::string>());
  }
  if (value.contains("method") && value["method"].is_string()) q.method = value["method"].get<std::string>();
  if (value.contains("images") && value["images"].is_number_integer()) q.images = value["images"].get<int64_t>();
  const auto count = static_cast<size_t>(channels);
  q.mean = mean.empty() ? std::vector<float>(count, 0.0f) : mean;
  q.std = std.empty() ? std::vector<float>(count, 1.0f) : std;
  return q;
}

std::map<std::string, TensorType> quantized_tensors(const ModelSpec& model, const ModelOptions& options,
                                                    const Quantization& quantization) {
  const auto graph =
      make_inference_graph(model, {.model = options, .images = {1, model.input[0], model.input[1], model.input[2]}});
  run_inference_passes(*graph, before_quantization());
  return quantize_graph(*graph, quantization.layers).tensors;
}

void require_quantized_fit(const WeightsFile& file, const std::map<std::string, TensorType>& tensors) {
  std::vector<std::string> wrong;
  for (const auto& [name, type] : tensors) {
    const auto found = file.entries().find(name);
    if (found == file.entries().end()) {
      wrong.push_back(fmt::format("'{}' is missing", name));
    } else if (found->second.shape != type.shape || found->second.stored != &stored_dtype_of(type.dtype)) {
      wrong.push_back(fmt::format("'{}' is {} {}, expected {} {}", name, found->second.stored->name,
                                  found->second.shape.str(), stored_dtype_of(type.dtype).name, type.shape.str()));
    }
  }
  for (const auto& [name, entry] : file.entries()) {
    if (!tensors.contains(name)) wrong.push_back(fmt::format("'{}' is unexpected", shown_name(name)));
  }
  if (wrong.empty()) return;
  constexpr size_t kShown = 5;
  const size_t more = wrong.size() > kShown ? wrong.size() - kShown : 0;
  wrong.resize(wrong.size() - more);
  throw UserError(ExitCode::bad_data,
                  "{}: the tensors do not fit the quantised model: {}{}; quantize the f32 model again", file.path(),
                  fmt::join(wrong, ", "), more ? fmt::format(" and {} more", more) : "");
}

std::map<std::string, Tensor> read_quantized(const WeightsFile& file,
                                             const std::map<std::string, TensorType>& tensors) {
  require_quantized_fit(file, tensors);
  std::vector<std::string> names;
  for (const auto& [name, type] : tensors) names.push_back(name);
  std::map<std::string, Tensor> values = file.load_all(names);
  for (const auto& [name, tensor] : values) {
    if (tensor.dtype() != DType::f32) continue;
    const bool scale = name.ends_with("_scale");
    // A weight kept in f32 may hold what it likes, as an f32 model's may; what 8-bit numbers are made from may not.
    const bool must_be_finite = scale || tensors.contains(name.substr(0, name.rfind('.')) + ".weight_scale");
    for (const float v : tensor.as<float>()) {
      if (!must_be_finite || (std::isfinite(v) && (!scale || v > 0))) continue;
      throw UserError(ExitCode::bad_data, "{}: tensor '{}': holds {}; expected {}; quantize the f32 model again",
                      file.path(), name, v, scale ? "finite numbers above 0" : "finite numbers");
    }
  }
  return values;
}

Tensor derive(const DerivedState& s, const std::map<std::string, Tensor>& tensors, const Quantization& q) {
  using Kind = DerivedState::Kind;
  Tensor value(s.type);
  const auto output = [&] { return static_cast<double>(find(tensors, s.layer + ".output_scale").as<float>()[0]); };
  switch (s.kind) {
    case Kind::multiplier: {
      const Tensor& weight_scale = find(tensors, s.layer + ".weight_scale");
      const double factor = scale_of(s.of, tensors) / output();
      for (size_t k = 0; k < value.as<float>().size(); ++k)
        value.as<float>()[k] = static_cast<float>(static_cast<double>(weight_scale.as<float>()[k]) * factor);
      return value;
    }
    case Kind::offset: return offset_of(s, tensors, q);
    case Kind::padding: {
      for (size_t c = 0; c < value.as<uint8_t>().size(); ++c) {
        const double zero = zero_of(s.of, static_cast<int64_t>(c), tensors, q);
        value.as<uint8_t>()[c] = static_cast<uint8_t>(std::clamp(std::nearbyint(zero), 0.0, 255.0));
      }
      return value;
    }
    case Kind::residual_multiplier:
      value.as<float>()[0] = static_cast<float>(scale_of(*s.residual, tensors) / output());
      return value;
    case Kind::factor:
      for (size_t c = 0; c < value.as<float>().size(); ++c) {
        const double factor = s.of.kind == ActivationScale::Kind::pixels ? 255.0 * static_cast<double>(q.std[c])
                                                                         : 1 / scale_of(s.of, tensors);
        value.as<float>()[c] = static_cast<float>(factor);
      }
      return value;
    case Kind::zeros:
      for (size_t c = 0; c < value.as<float>().size(); ++c)
        value.as<float>()[c] = static_cast<float>(zero_of(s.of, static_cast<int64_t>(c), tensors, q));
      return value;
    case Kind::scale: value.as<float>()[0] = static_cast<float>(scale_of(s.of, tensors)); return value;
    case Kind::zero: value.as<float>()[0] = static_cast<float>(zero_of(s.of, 0, tensors, q)); return value;
  }
  throw InternalError("quantized model: unknown kind of derived state");
}

}  // namespace resnet

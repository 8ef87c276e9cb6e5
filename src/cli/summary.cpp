#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "ops/blur_pool.h"
#include "ops/channel_conv.h"
#include "ops/conv2d.h"
#include "ops/linear.h"
#include "train/inference.h"
#include "train/model_file.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Row {
  std::string name, op, output_shape;
  int64_t parameters = 0;
  int64_t macs = 0;
};

struct Totals {
  int64_t parameters = 0;
  int64_t macs = 0;
};

/// A row per node of the unfused forward graph, in the order of its work.
std::vector<Row> rows_of(const Graph& graph) {
  std::vector<Row> rows;
  for (int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    if (node.kind != NodeKind::op) continue;
    Row row{node.name, std::string(node.op->name), "", 0, 0};
    Shape shape = node.outputs[0].shape;
    row.output_shape = Shape(std::vector<int64_t>(shape.dims().begin() + 1, shape.dims().end())).str();
    std::vector<TensorType> in;
    for (const Value& input : node.inputs) {
      in.push_back(input.type());
      if (graph.node(input).trainable) row.parameters += input.shape().elements();
    }
    if (node.op == &kConv2d)
      row.macs = shape.elements() * node.inputs[1].shape().elements() / node.inputs[1].shape()[0];
    if (node.op == &kLinear) row.macs = node.inputs[1].shape().elements();
    // The attention's and the blur's are convolutions too, with one channel in a group.
    if (node.op == &kChannelConv) row.macs = shape.elements() * node.inputs[1].shape().elements();
    if (node.op == &kBlurPool) row.macs = shape.elements() * 9;
    rows.push_back(row);
  }
  return rows;
}

Shape parse_size(const std::string& text) {
  std::vector<int64_t> dims;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('x', at), text.size());
    const std::string part = text.substr(at, end - at);
    const bool number = !part.empty() && part.size() <= 5 && part.find_first_not_of("0123456789") == std::string::npos;
    dims.push_back(number ? std::stoll(part) : 0);
    at = end + 1;
  }
  const bool ok =
      dims.size() == 3 && std::all_of(dims.begin(), dims.end(), [](int64_t d) { return d >= 1 && d <= 8192; });
  if (!ok)
    throw UserError("--input-size: '{}'; expected CHANNELSxHEIGHTxWIDTH, such as 1x96x96, each 1 to 8192",
                    escape_control(text));
  return Shape(dims);
}

int list_models(bool as_json) {
  json list = json::array();
  std::vector<std::vector<std::string>> rows = {{"model", "input", "parameters", "MMACs", "what"}};
  for (const ModelSpec& model : all_models()) {
    const auto graph = make_inference_graph(model, {.images = {1, model.input[0], model.input[1], model.input[2]}});
    Totals totals;
    for (const Row& row : rows_of(*graph)) {
      totals.parameters += row.parameters;
      totals.macs += row.macs;
    }
    list.push_back({{"model", model.name},
                    {"input_size", model.input.str()},
                    {"parameters", totals.parameters},
                    {"macs", totals.macs}});
    rows.push_back({model.name, model.input.str(), grouped(totals.parameters),
                    fmt::format("{:.1f}", static_cast<double>(totals.macs) / 1e6), model.summary});
  }
  if (as_json) {
    std::printf("%s\n", list.dump().c_str());
    return 0;
  }
  std::printf("%s\n%s\n", table(rows, 2, LastColumn::left).c_str(), kFamilies);
  return 0;
}

/// What a file of weights holds, whoever wrote it: the tensors and the metadata, of which long values are cut.
std::string contents_of(const WeightsFile& file) {
  std::vector<std::vector<std::string>> rows = {{"tensor", "dtype", "shape", "bytes"}};
  uint64_t bytes_in_all = 0;
  for (const auto& [name, entry] : file.entries()) {
    rows.push_back({name, entry.stored->name, entry.shape.str(), grouped(static_cast<int64_t>(entry.bytes()))});
    bytes_in_all += entry.bytes();
  }
  rows.push_back(
      {fmt::format("{} tensors", file.entries().size()), "", "", grouped(static_cast<int64_t>(bytes_in_all))});
  std::string text = table(rows, 2);
  std::vector<std::vector<std::string>> metadata = {{"metadata", "value"}};
  for (const auto& [key, value] : file.metadata()) {
    const std::string shown = shown_name(value);  // a line at most
    metadata.push_back({key, shown.size() < value.size() ? fmt::format("{} ({} bytes)", shown, value.size()) : shown});
  }
  if (metadata.size() > 1) text += "\n" + table(metadata, 2);
  return text;
}

json json_of(const WeightsFile& file) {
  json tensors = json::array();
  for (const auto& [name, entry] : file.entries()) {
    tensors.push_back(
        {{"name", name}, {"dtype", entry.stored->name}, {"shape", entry.shape.dims()}, {"bytes", entry.bytes()}});
  }
  return {{"format", file.format()}, {"tensors", tensors}, {"metadata", file.metadata()}};
}

/// A file that names no architecture: its tensors are all that is known.
int summarize_foreign(const WeightsFile& file, bool as_json) {
  int64_t parameters = 0;
  for (const auto& [name, entry] : file.entries()) {
    const bool statistic =
        name.ends_with("running_mean") || name.ends_with("running_var") || name.ends_with("num_batches_tracked");
    if (!statistic) parameters += entry.shape.elements();
  }
  if (as_json) {
    json result = json_of(file);
    result["model"] = nullptr;
    result["parameters"] = parameters;
    std::printf("%s\n", result.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
    return 0;
  }
  const std::string wrapper = file.wrapper().empty() ? "" : fmt::format(", under '{}'", file.wrapper());
  std::printf("%s: %s%s, of no architecture that it names; %s parameters\n%s", escape_control(file.path()).c_str(),
              file.format(), wrapper.c_str(), grouped(parameters).c_str(), contents_of(file).c_str());
  return 0;
}

/// The model.* settings of --set, over those of a model file.
void apply_settings(const std::vector<std::string>& settings, ModelOptions& options) {
  constexpr std::string_view kPrefix = "model.";
  for (const std::string& setting : settings) {
    const size_t equals = setting.find('=');
    if (equals == std::string::npos || !setting.starts_with(kPrefix))
      throw UserError("--set: '{}'; expected model.KEY=VALUE, such as model.blocks=[3,4,6,3]", escape_control(setting));
    set_option(setting.substr(kPrefix.size(), equals - kPrefix.size()), setting.substr(equals + 1), options);
  }
}

int run_summary(const std::string& name, const std::string& architecture, const std::string& input_size,
                const std::vector<std::string>& settings, bool as_json, bool list) {
  const bool shapes_a_net = !input_size.empty() || !settings.empty();
  if (list && (shapes_a_net || !name.empty() || !architecture.empty()))
    throw UserError("--list: beside a model or its options; expected it alone, or with --json");
  if (list) return list_models(as_json);
  if (name.empty())
    throw UserError("summary: no MODEL given; expected a name or a model file; see resnet summary --list");
  ModelOptions options;
  ModelSpec model;
  std::optional<WeightsFile> file;
  if (is_model_file(name)) {
    file.emplace(name);
    const bool foreign = architecture.empty() && !file->metadata().contains("architecture");
    if (foreign && shapes_a_net) {
      throw UserError(
          "summary: --input-size or --set, and {} names no architecture; expected --architecture NAME beside them",
          escape_control(name));
    }
    if (foreign) return summarize_foreign(*file, as_json);
    const ModelDescription d =
        architecture.empty()
            ? describe_model(*file, file->metadata())
            : from_metadata(file->path(), completed_metadata(*file, known_of_weights(architecture, "", {})));
    model = find_model(d.architecture);
    model.input = {d.channels, d.preprocessing.image_size, d.preprocessing.image_size};
    options = d.options;
  } else {
    if (!architecture.empty()) {
      throw UserError("--architecture: {} beside the architecture '{}'; expected a file of weights, which it is of",
                      escape_control(architecture), escape_control(name));
    }
    model = find_model(name);
  }
  apply_settings(settings, options);
  if (!input_size.empty()) model.input = parse_size(input_size);
  const auto graph =
      make_inference_graph(model, {.model = options, .images = {1, model.input[0], model.input[1], model.input[2]}});
  Totals totals;
  json layers = json::array();
  std::vector<std::vector<std::string>> rows = {{"layer", "op", "output", "parameters", "MACs"}};
  for (const Row& row : rows_of(*graph)) {
    totals.parameters += row.parameters;
    totals.macs += row.macs;
    layers.push_back({{"name", row.name},
                      {"op", row.op},
                      {"output_shape", row.output_shape},
                      {"parameters", row.parameters},
                      {"macs", row.macs}});
    rows.push_back({row.name, row.op, row.output_shape, row.parameters ? grouped(row.parameters) : "",
                    row.macs ? grouped(row.macs) : ""});
  }
  if (as_json) {
    json result = file ? json_of(*file) : json::object();
    result.update({{"model", model.name},
                   {"input_size", model.input.str()},
                   {"parameters", totals.parameters},
                   {"macs", totals.macs},
                   {"layers", layers}});
    std::printf("%s\n", result.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
    return 0;
  }
  rows.push_back({"total", "", "", grouped(totals.parameters), grouped(totals.macs)});
  std::printf("%s at %s\n%s", model.name.c_str(), model.input.str().c_str(), table(rows, 2).c_str());
  if (file) std::printf("\n%s", contents_of(*file).c_str());
  return 0;
}

}  // namespace

Command add_summary(CLI::App& app) {
  struct Arguments {
    std::string model, architecture, input_size;
    std::vector<std::string> settings;
    bool json = false, list = false;
  };
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand(
      "summary", "A row per layer: output shape, parameters, multiply-adds; of a file also its tensors");
  verb->add_option("MODEL", a->model, "name of an architecture, a model file, or any weights (safetensors, .pth)");
  verb->add_option("--architecture", a->architecture, "whose weights they are, where the file does not say")
      ->type_name("NAME");
  verb->add_option("--input-size", a->input_size, "CHANNELSxHEIGHTxWIDTH, pixels; default the model's own");
  verb->add_option("--set", a->settings, "a model's option, as model.KEY=VALUE, e.g. model.blocks=[3,4,6,3]")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
  verb->add_flag("--json", a->json, "print as JSON");
  verb->add_flag("--list", a->list, "list all architectures");
  verb->footer("Example: resnet summary lecture_resnet18 --input-size 1x96x96");
  return [a] { return run_summary(a->model, a->architecture, a->input_size, a->settings, a->json, a->list); };
}

}  // namespace resnet::cli

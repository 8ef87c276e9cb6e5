#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "train/export.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string model, out, architecture, class_names;
  std::vector<std::string> metadata;
  ExportOptions options;
  bool dynamic_batch = true;
  int64_t batch_size = 1;
  bool force = false;
  bool json = false;
};

int run_export(const CLI::App& verb, const Arguments& a) {
  if (!a.out.ends_with(".onnx"))
    throw UserError("export: OUT '{}'; expected a name that ends in .onnx", escape_control(a.out));
  if (a.options.opset < 13 || a.options.opset > 17) throw UserError("--opset: {}; expected 13 to 17", a.options.opset);
  if (a.batch_size < 1 || a.batch_size > 65536)
    throw UserError("--batch-size: {}; expected 1 to 65536 images", a.batch_size);
  if (a.dynamic_batch && verb.count("--batch-size") > 0)
    throw UserError("--batch-size: {} with a dynamic batch; expected --no-dynamic-batch beside it", a.batch_size);
  require_free(a.out, a.force);
  ExportOptions options = a.options;
  options.batch = a.dynamic_batch ? 0 : a.batch_size;

  const WeightsFile file(a.model);
  const KnownOfWeights known = known_of_weights(a.architecture, a.class_names, a.metadata);
  const auto metadata = completed_metadata(file, known);
  const LoadedModel model = load_model(file, metadata);
  if (model.quantization && !options.fold_batch_norm)
    throw UserError(ExitCode::refused,
                    "--no-fold-batch-norm: {} holds 8-bit weights, into which batch norm is folded; leave it out",
                    escape_control(a.model));
  StringSink onnx;
  export_onnx(onnx, model, metadata, options);
  const size_t written = onnx.text().size();
  if (const int stopped = write_unless_stopped(a.out, [&](ByteSink& sink) { sink.write(onnx.text()); })) return stopped;
  note_preprocessing(file, known, metadata);

  const ModelDescription& d = model.description;
  const std::string batch = a.dynamic_batch ? "batch" : std::to_string(a.batch_size);
  const int64_t size = d.preprocessing.image_size;
  if (a.json) {
    std::printf("%s\n", json{{"model", d.architecture},
                             {"output", a.out},
                             {"opset", options.opset},
                             {"bytes", written},
                             {"input", {{"name", "images"}, {"shape", {batch, d.channels, size, size}}}},
                             {"classes", d.class_names.size()}}
                            .dump(-1, ' ', false, json::error_handler_t::replace)
                            .c_str());
  } else {
    std::printf("%s\n", escape_control(fmt::format("{} -> {}: opset {}, images [{},{},{},{}] -> logits [{},{}], {}",
                                                   d.architecture, a.out, options.opset, batch, d.channels, size, size,
                                                   batch, d.class_names.size(), bytes(written)))
                            .c_str());
  }
  return 0;
}

}  // namespace

Command add_export(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("export", "A model as an ONNX file, for other runtimes");
  verb->add_option("MODEL", a->model, "model file, or weights with --architecture")->required();
  verb->add_option("OUT", a->out, "the file to write, .onnx")->required();
  verb->add_option("--opset", a->options.opset, "version of ONNX's operators, 13 to 17")->capture_default_str();
  verb->add_flag("--fold-batch-norm,!--no-fold-batch-norm", a->options.fold_batch_norm,
                 "batch norm becomes part of the convolution before it (default), or stays a node");
  verb->add_flag("--dynamic-batch,!--no-dynamic-batch", a->dynamic_batch,
                 "any number of images at once (default), or --batch-size");
  verb->add_option("-b,--batch-size", a->batch_size, "images at once, with --no-dynamic-batch")->capture_default_str();
  add_known_of_weights(*verb, a->architecture, a->class_names, a->metadata);
  verb->add_flag("--force", a->force, "replace OUT if it is there");
  verb->add_flag("--json", a->json, "print the result as JSON");
  verb->footer("Example: resnet export runs/first/best.safetensors best.onnx");
  return [verb, a] { return run_export(*verb, *a); };
}

}  // namespace resnet::cli

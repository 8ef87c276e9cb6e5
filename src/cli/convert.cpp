#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "formats/torch_file.h"
#include "train/model_file.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string in, out, architecture, class_names;
  std::vector<std::string> metadata;
  bool force = false;
  bool json = false;
};

using Writer = void (*)(const std::string& path, const StoredModel& model);

/// By OUT's ending: what is written there.
Writer writer_of(const std::string& out) {
  if (out.ends_with(".safetensors")) return write_safetensors;
  if (out.ends_with(".pth") || out.ends_with(".pt")) return write_torch;
  throw UserError("convert: OUT '{}'; expected a name that ends in .safetensors, .pth or .pt", escape_control(out));
}

int run_convert(const Arguments& a) {
  const Writer write = writer_of(a.out);
  const bool to_torch = write == static_cast<Writer>(write_torch);
  require_free(a.out, a.force);
  const WeightsFile file(a.in);
  StoredModel model = stored_model(file);
  const KnownOfWeights known = known_of_weights(a.architecture, a.class_names, a.metadata);
  const bool is_model = !known.architecture.empty() || file.metadata().contains("architecture");
  if (is_model && !to_torch) {
    model.metadata = completed_metadata(file, known);
  } else if (!known.metadata.empty() || !known.class_names.empty() || !known.architecture.empty()) {
    if (to_torch) {
      throw UserError(
          "convert: --architecture, --class-names or --metadata for '{}'; a file of PyTorch has no place for them; "
          "leave them out",
          escape_control(a.out));
    }
    throw UserError(
        "convert: --class-names or --metadata, and '{}' names no architecture; expected --architecture NAME beside "
        "them",
        escape_control(a.in));
  } else if (!to_torch) {
    model.metadata.emplace("format", "pt");  // other programs' readers ask for it
  }
  write(a.out, model);

  if (!file.wrapper().empty()) note(fmt::format("{}: took the state dict under '{}'", a.in, file.wrapper()));
  if (to_torch && !file.metadata().empty())
    note(fmt::format("{}: holds the tensors alone; the metadata of {} have no place in it", a.out, a.in));
  if (!to_torch && !is_model) {
    note(fmt::format(
        "{}: weights of no known architecture, for train --weights; --architecture NAME makes a model file", a.out));
  }
  uint64_t bytes_in_all = 0;
  for (const StoredTensor& tensor : model.tensors) bytes_in_all += tensor.size();
  if (a.json) {
    json result = {{"input", a.in},         {"format", file.format()},
                   {"output", a.out},       {"tensors", model.tensors.size()},
                   {"bytes", bytes_in_all}, {"architecture", nullptr}};
    if (const auto named = model.metadata.find("architecture"); named != model.metadata.end())
      result["architecture"] = named->second;
    std::printf("%s\n", result.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s\n", escape_control(fmt::format("{} ({}) -> {}: {} tensors, {}", a.in, file.format(), a.out,
                                                   model.tensors.size(), bytes(bytes_in_all)))
                            .c_str());
  }
  return 0;
}

}  // namespace

void require_free(const std::string& out, bool force) {
  std::error_code error;
  if (!force && std::filesystem::exists(std::filesystem::symlink_status(out, error)))
    throw UserError(ExitCode::refused, "{}: is there already; expected a new name, or --force to replace it",
                    escape_control(out));
}

void note(const std::string& text) { std::fprintf(stderr, "resnet: note: %s\n", escape_control(text).c_str()); }

KnownOfWeights known_of_weights(const std::string& architecture, const std::string& class_names,
                                const std::vector<std::string>& metadata) {
  KnownOfWeights known{.architecture = architecture, .class_names = {}, .metadata = {}};
  if (!architecture.empty()) find_model(architecture);  // before a file is opened
  if (!class_names.empty()) {
    const std::string text = read_whole_file(class_names, 1 << 24);
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      std::string name = text.substr(at, end - at);
      if (name.ends_with('\r')) name.pop_back();
      if (name.empty())
        throw bad_data(class_names, at, "class names",
                       "an empty line; expected one name a line, in the order of the classes");
      known.class_names.push_back(name);
      at = end + 1;
    }
    if (known.class_names.empty())
      throw bad_data(class_names, 0, "class names", "an empty file; expected one name a line");
  }
  for (const std::string& assignment : metadata) {
    const size_t equals = assignment.find('=');
    if (equals == 0 || equals == std::string::npos)
      throw UserError("--metadata: '{}'; expected KEY=VALUE", escape_control(assignment));
    known.metadata[assignment.substr(0, equals)] = assignment.substr(equals + 1);
  }
  return known;
}

void add_known_of_weights(CLI::App& verb, std::string& architecture, std::string& class_names,
                          std::vector<std::string>& metadata) {
  verb.add_option("--architecture", architecture, "whose weights they are, where the file does not say")
      ->type_name("NAME");
  verb.add_option("--class-names", class_names, "a name a line; default ImageNet's for 1,000 classes, or numbers")
      ->type_name("FILE");
  verb.add_option("--metadata", metadata, "one key of the metadata, e.g. crop_pct=0.95 or input_size=[3,288,288]")
      ->type_name("KEY=VALUE")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

Command add_convert(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb =
      app.add_subcommand("convert", "Weights from one file format to another; every tensor keeps its bytes");
  verb->add_option("IN", a->in, "safetensors, or a .pth or .pt of torch.save; the content decides")->required();
  verb->add_option("OUT", a->out, "its ending decides: .safetensors, .pth or .pt")->required();
  add_known_of_weights(*verb, a->architecture, a->class_names, a->metadata);
  verb->add_flag("--force", a->force, "replace OUT if it is there");
  verb->add_flag("--json", a->json, "print the result as JSON");
  verb->footer("Example: resnet convert resnet50.pth resnet50.safetensors --architecture resnet50");
  return [a] { return run_convert(*a); };
}

}  // namespace resnet::cli

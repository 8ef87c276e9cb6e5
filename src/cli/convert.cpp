#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/utf8.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "formats/torch_file.h"
#include "train/model_file.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string in, out, architecture, class_names, strip_prefix;
  std::vector<std::string> metadata;
  bool force = false;
  bool json = false;
};

using Writer = void (*)(ByteSink& sink, const StoredModel& model);

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
  const WeightsFile file(a.in, a.strip_prefix);
  require_not_quantized(file);
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
  if (const int stopped = write_unless_stopped(a.out, [&](ByteSink& sink) { write(sink, model); })) return stopped;

  if (!file.wrapper().empty()) note(fmt::format("{}: took the state dict under '{}'", a.in, file.wrapper()));
  if (!file.prefix().empty()) {
    note(fmt::format("{}: left out '{}' before every name{}", a.in, file.prefix(),
                     file.left_out() == 0 ? "" : fmt::format(", and {} tensors without it", file.left_out())));
  }
  if (is_model && !to_torch) note_preprocessing(file, known, model.metadata);
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
  if (std::filesystem::is_directory(out, error))
    throw ResourceError(ExitCode::io, "{}: is a folder; expected the name of a file", escape_control(out));
  const std::filesystem::path folder = std::filesystem::weakly_canonical(out, error).parent_path();
  if (::access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0)
    throw ResourceError(ExitCode::io, "{}: cannot write to its folder: {}", escape_control(out), std::strerror(errno));
}

void note_preprocessing(const WeightsFile& file, const KnownOfWeights& known,
                        const std::map<std::string, std::string>& metadata) {
  if (!assumes_preprocessing(file, known)) return;
  const ModelDescription d = from_metadata(file.path(), metadata);
  const char* source = find_model(d.architecture).photos->source;
  note(fmt::format(
      "preprocessing assumed: shorter side {}, centre {}, {}, as {} have it; for others: --metadata, such as "
      "resize_size=232 for torchvision's IMAGENET1K_V2",
      resized_side(d.preprocessing), d.preprocessing.image_size, name_of(d.preprocessing.interpolation), source));
}

namespace {

/// The writer saw the signal.
struct Stopped {};

class StoppableSink final : public ByteSink {
 public:
  StoppableSink(ByteSink& to, const std::atomic<int>& stop) : to_(to), stop_(stop) {}
  using ByteSink::write;
  void write(std::span<const std::byte> bytes) override {
    constexpr size_t kPiece = size_t{16} << 20;
    while (!bytes.empty()) {
      if (stop_ != 0) throw Stopped();
      const auto piece = bytes.first(std::min(bytes.size(), kPiece));
      to_.write(piece);
      bytes = bytes.subspan(piece.size());
    }
  }

 private:
  ByteSink& to_;
  const std::atomic<int>& stop_;
};

}  // namespace

int write_unless_stopped(const std::string& path, const ContentWriter& content) {
  const std::atomic<int>& stop = install_stop_signals();
  try {
    atomic_write_file(path, [&](ByteSink& sink) {
      StoppableSink stoppable(sink, stop);
      content(stoppable);
    });
  } catch (const Stopped&) {
    return 128 + stop;
  }
  return 0;
}

void note(const std::string& text) { std::fprintf(stderr, "resnet: note: %s\n", escape_control(text).c_str()); }

namespace {

/// A key of a model file's metadata, or one of the user's own, "x.source".
std::string checked_key(const std::string& key) {
  static const std::vector<std::string> kKeys = {"architecture", "class_names", "num_classes",      "input_size",
                                                 "mean",         "std",         "interpolation",    "crop_pct",
                                                 "resize",       "resize_size", "exif_orientation", "format"};
  const bool known =
      key.starts_with("x.") || key.starts_with("model.") || std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end();
  if (!known) {
    throw UserError("--metadata: unknown key '{}'; nearest: {}; keys of your own begin with x.", escape_control(key),
                    nearest_names(key, kKeys));
  }
  return key;
}

}  // namespace

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
      for (size_t byte = 0; byte < name.size();) {
        const auto point = code_point_at(name, byte);
        if (!point) {
          throw bad_data(class_names, at + byte, "class names", "line {} is not UTF-8; expected text in UTF-8",
                         known.class_names.size() + 1);
        }
        byte += point->bytes;
      }
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
    known.metadata[checked_key(assignment.substr(0, equals))] = assignment.substr(equals + 1);
  }
  if (const auto named = known.metadata.find("architecture"); named != known.metadata.end()) {
    if (!architecture.empty() && named->second != architecture) {
      throw UserError("--metadata: architecture={}, and --architecture {}; expected one of them",
                      escape_control(named->second), architecture);
    }
    known.architecture = find_model(named->second).name;
    known.metadata.erase(named);
  }
  return known;
}

void add_known_of_weights(CLI::App& verb, std::string& architecture, std::string& class_names,
                          std::vector<std::string>& metadata) {
  verb.add_option("--architecture", architecture, "whose weights they are, where the file does not say")
      ->type_name("NAME");
  verb.add_option("--class-names", class_names, "a name a line; default ImageNet's for 1,000 classes, or numbers")
      ->type_name("FILE");
  verb.add_option("--metadata", metadata, "one key of the metadata, e.g. resize_size=232 for torchvision's V2 weights")
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
  verb->add_option("--strip-prefix", a->strip_prefix, "take the tensors whose names begin so, without it, e.g. model.")
      ->type_name("TEXT");
  verb->add_flag("--force", a->force, "replace OUT if it is there");
  verb->add_flag("--json", a->json, "print the result as JSON");
  verb->footer("Example: resnet convert resnet50.pth resnet50.safetensors --architecture resnet50");
  return [a] { return run_convert(*a); };
}

}  // namespace resnet::cli

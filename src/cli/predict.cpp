#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "runtime/backends.h"
#include "serve/classifier.h"
#include "serve/image_files.h"
#include "serve/image_paths.h"

namespace resnet::cli {
namespace {

using nlohmann::json;

struct Arguments {
  std::string model, backend = "cpu", on_bad_sample = "report";
  std::vector<std::string> images;
  int64_t top_k = 5, batch_size = 32, threads = 0;
  std::optional<int64_t> workers;
  std::optional<std::string> precision;
  bool json = false, csv = false, logits = false;
};

/// Images that could not be used: each has its line on stderr, and the first one's code is the program's.
class Failures {
 public:
  Failures(Progress& progress, const std::string& policy) : progress_(progress), policy_(policy) {}
  void add(ExitCode code, const std::string& message) {
    if (policy_ == "stop") throw UserError(code, "{}", message);
    const bool skip = policy_ == "skip";
    progress_.print(fmt::format("resnet: {}: {}", skip ? "warning" : "error", message));
    ++count_;
    if (!skip && code_ == ExitCode::ok) code_ = code;
  }
  int64_t count() const { return count_; }
  ExitCode code() const { return code_; }

 private:
  Progress& progress_;
  const std::string& policy_;
  int64_t count_ = 0;
  ExitCode code_ = ExitCode::ok;
};

/// One name a line, which may end as Windows ends them.
std::vector<std::string> names_from_stdin() {
  constexpr size_t kMost = size_t{256} << 20;
  std::vector<std::string> names;
  size_t bytes = 0;
  for (std::string line; std::getline(std::cin, line);) {
    bytes += line.size() + 1;
    if (bytes > kMost) throw ResourceError(ExitCode::limit, "stdin: more than {} bytes of names", kMost);
    if (line.ends_with('\r')) line.pop_back();
    if (line.find('\0') != std::string::npos)
      throw UserError("stdin: line {} holds a zero byte; expected one name a line, as `find` prints without -print0",
                      names.size() + 1);
    if (!line.empty()) names.push_back(std::move(line));
  }
  return names;
}

std::vector<std::string> paths_of(const std::vector<std::string>& arguments, Failures& failures) {
  std::vector<std::string> names;
  for (const std::string& argument : arguments) {
    if (argument != "-") {
      names.push_back(argument);
      continue;
    }
    const std::vector<std::string> listed = names_from_stdin();
    names.insert(names.end(), listed.begin(), listed.end());
  }
  std::vector<std::string> paths;
  for (const std::string& name : names) {
    try {
      const std::vector<std::string> files =
          image_paths(name, [&](const ResourceError& error) { failures.add(error.code(), error.what()); });
      paths.insert(paths.end(), files.begin(), files.end());
    } catch (const ResourceError& error) {
      failures.add(error.code(), error.what());
    }
  }
  return paths;
}

/// Writes what was predicted of one image after the other.
class Writer {
 public:
  Writer(const Arguments& arguments, const std::vector<std::string>& class_names, const std::vector<std::string>& paths)
      : arguments_(arguments), class_names_(class_names) {
    // Lines are written as they come, so the columns' widths are chosen before; a longer name moves its own line only.
    for (const std::string& path : paths) path_width_ = std::max(path_width_, characters(escape_control(path)));
    for (const std::string& name : class_names) class_width_ = std::max(class_width_, characters(escape_control(name)));
    path_width_ = std::min<size_t>(path_width_, 60);
    class_width_ = std::min<size_t>(class_width_, 28);
    if (arguments_.csv) {
      std::printf("path,rank,index,class,probability%s\r\n", arguments_.logits ? ",logit" : "");
    }
  }

  void write(const std::string& path, std::span<const float> logits) const {
    const std::vector<Prediction> best = Classifier::top_k(logits, arguments_.top_k, class_names_);
    if (arguments_.json) return write_json(path, logits, best);
    if (arguments_.csv) return write_csv(path, logits, best);
    std::string line = padded(escape_control(path), path_width_);
    for (const Prediction& p : best) {
      line += fmt::format("  {}  {:6.2f} %", padded(escape_control(p.name), class_width_), 100 * p.probability);
    }
    std::printf("%s\n", line.c_str());
  }

 private:
  static std::string padded(const std::string& text, size_t width) {
    return text + std::string(width - std::min(width, characters(text)), ' ');
  }

  void write_json(const std::string& path, std::span<const float> logits, const std::vector<Prediction>& best) const {
    json predictions = json::array();
    for (const Prediction& p : best) {
      predictions.push_back({{"index", p.index}, {"class", p.name}, {"probability", p.probability}});
    }
    json object = {{"path", path}, {"predictions", predictions}};
    if (arguments_.logits) object["logits"] = std::vector<float>(logits.begin(), logits.end());
    // What is not finite is written as null, what is no UTF-8 as U+FFFD.
    std::printf("%s\n", object.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  }

  /// RFC 4180.
  static std::string quoted(const std::string& text) {
    if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
    std::string inside;
    for (const char c : text) inside += c == '"' ? std::string("\"\"") : std::string(1, c);
    return '"' + inside + '"';
  }

  void write_csv(const std::string& path, std::span<const float> logits, const std::vector<Prediction>& best) const {
    int64_t rank = 0;
    for (const Prediction& p : best) {
      std::string row = fmt::format("{},{},{},{},{}", quoted(path), ++rank, p.index, quoted(p.name), p.probability);
      if (arguments_.logits) row += fmt::format(",{}", logits[static_cast<size_t>(p.index)]);
      std::printf("%s\r\n", row.c_str());
    }
  }

  const Arguments& arguments_;
  const std::vector<std::string>& class_names_;
  size_t path_width_ = 0, class_width_ = 0;
};

void validate(const Arguments& a) {
  if (a.top_k < 1) throw UserError("--top-k: {}; expected 1 or more classes", a.top_k);
  if (a.batch_size < 1 || a.batch_size > 65536)
    throw UserError("--batch-size: {}; expected 1 to 65536 images", a.batch_size);
  require_thread_count(a.threads);
  if (a.json && a.csv) throw UserError("--csv: given beside --json; expected one of them");
  if (a.logits && !a.json && !a.csv) throw UserError("--logits: given alone; expected --json or --csv with it");
  if (a.on_bad_sample != "report" && a.on_bad_sample != "skip" && a.on_bad_sample != "stop")
    throw UserError("--on-bad-sample: '{}'; expected report, skip or stop", escape_control(a.on_bad_sample));
}

int run_predict(const Arguments& a) {
  validate(a);
  const std::optional<Precision> precision = parse_precision(a.precision);  // before any file is looked at
  const int64_t threads = compute_threads(a.threads);
  const int64_t workers = a.workers.value_or(threads / 4);
  if (workers < 0 || workers >= threads) {
    throw UserError("--workers: {}; expected 0 or more, and fewer than the {} threads, of which they are part", workers,
                    threads);
  }
  Progress progress;
  Failures failures(progress, a.on_bad_sample);
  const std::vector<std::string> paths = paths_of(a.images, failures);
  const auto files = static_cast<int64_t>(paths.size());
  // Without a file too: the model is looked at, and a table has its header.
  const int64_t batch_size = std::clamp<int64_t>(files, 1, a.batch_size);
  Classifier classifier(a.model, {.threads = static_cast<int>(threads - workers),
                                  .max_batch = batch_size,
                                  .backend = a.backend,
                                  .measure = true,
                                  .expected_images = std::max<int64_t>(files, 1),
                                  .progress = preparing(progress),
                                  .precision = precision});
  progress.clear();
  const ModelDescription& model = classifier.description();
  ImageFiles images(paths, {.batch_size = batch_size,
                            .channels = model.channels,
                            .dtype = classifier.input_dtype(),
                            .preprocessing = model.preprocessing,
                            .threads = static_cast<int>(workers > 0 ? workers : threads),
                            .ahead = workers > 0});
  const std::atomic<int>& stop = install_stop_signals();
  const Writer writer(a, model.class_names, paths);
  const size_t classes = model.class_names.size();
  const auto start = std::chrono::steady_clock::now();
  int64_t done = 0, turned = 0;
  while (const FileBatch* batch = images.next()) {
    const Tensor logits = classifier.logits(batch->inputs);
    for (const std::string& text : classifier.take_warnings()) progress.print("resnet: warning: " + text);
    size_t row = 0;
    progress.clear();
    for (size_t i = 0; i < batch->files(); ++i) {
      if (const auto& failure = batch->failures[i]) {
        std::fflush(stdout);  // so that the two streams tell the same order on a terminal
        failures.add(failure->code, failure->message);
      } else {
        writer.write(paths[batch->first + i], logits.as<float>().subspan(row++ * classes, classes));
      }
    }
    turned += batch->turned;
    done += static_cast<int64_t>(batch->files());
    if (std::fflush(stdout) != 0) break;  // nobody reads any more; main() says so
    if (stop != 0 && done < files) return 128 + stop;
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double rate = static_cast<double>(done) / seconds;
    if (done < files && seconds > 1) {  // a handful of images needs no progress
      progress.update(fmt::format("predicting {}/{}  {:.0f} img/s  {} left", done, files, rate,
                                  duration(static_cast<double>(files - done) / rate)));
    }
  }
  progress.clear();
  if (turned > 0 && !model.preprocessing.exif_orientation) {
    progress.print(
        fmt::format("resnet: warning: {} of {} images carry an EXIF orientation, which the model was trained "
                    "without looking at; they were taken as stored",
                    turned, files));
  }
  if (failures.count() > 0) {
    progress.print(fmt::format("resnet: {} of the images given could not be used", failures.count()));
  }
  return static_cast<int>(failures.code());
}

}  // namespace

Command add_predict(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("predict", "Classes of image files, by a model file");
  verb->add_option("MODEL", a->model, "model file (.safetensors)")->required();
  verb->add_option("IMAGE", a->images,
                   "files, folders, quoted patterns ('photos/*.jpg'); -: a list on stdin, one a line")
      ->required()
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_option("--top-k", a->top_k, "classes of each image, the most probable first")->capture_default_str();
  verb->add_flag("--json", a->json, "print an object a line for each image");
  verb->add_flag("--csv", a->csv, "print a row for each image and class");
  verb->add_flag("--logits", a->logits, "all logits too (with --json), or those of the classes printed (with --csv)");
  verb->add_option("-b,--batch-size", a->batch_size, "images at a time")->capture_default_str();
  verb->add_option("--threads", a->threads, "threads in all; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("-j,--workers", a->workers,
                   "of them, threads that decode while the others compute; 0: all decode, then all compute; default a "
                   "quarter");
  verb->add_option(
          "--on-bad-sample", a->on_bad_sample,
          "an image that cannot be used: report (others go on, exit code of the first such), skip (exit code 0) "
          "or stop")
      ->capture_default_str();
  verb->add_option("--precision", a->precision,
                   "f32, or f16: products in half precision, on a processor with AVX512-FP16; default f32, or int8 for "
                   "a file that `resnet quantize` wrote, which computes in nothing else");
  verb->add_option("--backend", a->backend, "cpu or reference")->capture_default_str();
  verb->footer(
      "Images come out in the order given; a folder's in the order of their paths.\n"
      "Example: resnet predict runs/first/best.safetensors photos/ --top-k 3\n"
      "         resnet predict runs/first/best.safetensors photos/ --precision f16");
  return [a] { return run_predict(*a); };
}

}  // namespace resnet::cli

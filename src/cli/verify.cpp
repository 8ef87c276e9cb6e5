#include <cmath>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "data/class_names.h"
#include "runtime/backends.h"
#include "serve/golden.h"
#include "serve/image_paths.h"

namespace resnet::cli {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

struct Arguments {
  std::string model, against, write, backend = "cpu";
  std::vector<std::string> images;
  double tolerance = 1e-4;
  int64_t threads = 0;
  bool json = false, force = false;
};

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

int write(const Arguments& a, Classifier& classifier) {
  require_free(a.write, a.force);
  const fs::path folder = fs::absolute(folder_of(a.write));
  Golden golden{.architecture = classifier.description().architecture,
                .preprocessing = classifier.description().preprocessing,
                .images = {}};
  for (const std::string& argument : a.images) {
    for (const std::string& path : image_paths(argument)) {
      const std::string name = fs::absolute(path).lexically_proximate(folder).string();
      if (!is_utf8(name)) {
        throw UserError("{}: the name is not UTF-8; expected one that a golden, which is JSON, can hold; rename it",
                        escape_control(name));
      }
      golden.images.push_back(observe(classifier, path, name));
    }
  }
  write_golden(a.write, golden);
  if (a.json) {
    std::printf("%s\n", json{{"golden", a.write}, {"images", golden.images.size()}}
                            .dump(-1, ' ', false, json::error_handler_t::replace)
                            .c_str());
  } else {
    std::printf("%s: %zu images; hold a model against it with: resnet verify MODEL --against %s\n",
                escape_control(a.write).c_str(), golden.images.size(), escape_control(a.write).c_str());
  }
  return 0;
}

/// One image that is not as the golden says.
struct Finding {
  std::string file, error;  ///< error: why it could not be looked at
  GoldenDifference difference;
};

void print_findings(const std::vector<Finding>& findings, size_t images, double tolerance) {
  std::vector<std::vector<std::string>> rows = {{"image", "file", "pixels", "logits differ by"}};
  for (const Finding& f : findings) {
    if (!f.error.empty()) {
      rows.push_back({f.file, "unusable", "", f.error});
      continue;
    }
    rows.push_back(
        {f.file, f.difference.file ? "another" : "same", f.difference.pixels ? "differ" : "same",
         fmt::format("{:.2e}{}", f.difference.logits, f.difference.logits <= tolerance ? "" : " (too far)")});
  }
  std::printf(
      "%s%zu of %zu images differ from the golden (pixels byte for byte; logits by more than %s of the largest)\n",
      table(rows, 4).c_str(), findings.size(), images, fmt::format("{:.2g}", tolerance).c_str());
}

int hold_against(const Arguments& a, Classifier& classifier) {
  std::error_code unknown;
  const fs::path file =
      fs::is_directory(a.against, unknown) ? fs::path(a.against) / "golden.json" : fs::path(a.against);
  const std::vector<GoldenImage> golden = read_golden(file.string(), classifier.description().class_names.size());
  std::vector<Finding> findings;
  double furthest = 0;
  for (const GoldenImage& then : golden) {
    Finding finding{.file = then.file, .error = {}, .difference = {}};
    try {
      // An absolute path stays as it is.
      finding.difference = difference(observe(classifier, (folder_of(file) / then.file).string(), then.file), then);
      furthest = std::max(furthest, finding.difference.logits);
    } catch (const InternalError&) {
      throw;
    } catch (const Error& error) {
      if (error.code() == ExitCode::refused) throw;  // the model's fault, not an image's
      finding.error = error.what();
    }
    const GoldenDifference& d = finding.difference;
    if (!finding.error.empty() || d.file || d.pixels || !(d.logits <= a.tolerance)) findings.push_back(finding);
  }
  const bool same = findings.empty();
  if (a.json) {
    json list = json::array();
    for (const Finding& f : findings) {
      if (f.error.empty()) {
        list.push_back({{"file", f.file},
                        {"same_file", !f.difference.file},
                        {"same_pixels", !f.difference.pixels},
                        {"logits", f.difference.logits}});
      } else {
        list.push_back({{"file", f.file}, {"error", f.error}});
      }
    }
    std::printf("%s\n", json{{"golden", file.string()},
                             {"images", golden.size()},
                             {"largest_logit_difference", furthest},
                             {"tolerance", a.tolerance},
                             {"differences", list}}
                            .dump(-1, ' ', false, json::error_handler_t::replace)
                            .c_str());
  } else if (same) {
    std::printf("%zu images are as in %s: pixels byte for byte, logits within %s of the largest\n", golden.size(),
                escape_control(file.string()).c_str(), fmt::format("{:.2g}", furthest).c_str());
  } else {
    print_findings(findings, golden.size(), a.tolerance);
  }
  return static_cast<int>(same ? ExitCode::ok : ExitCode::check_failed);
}

int run_verify(const Arguments& a) {
  if (a.against.empty() == a.write.empty()) {
    throw UserError("verify: {}; expected --against GOLDEN, or images and --write GOLDEN",
                    a.write.empty() ? "neither --against nor --write" : "--against and --write");
  }
  if (!a.against.empty() && !a.images.empty()) {
    throw UserError("verify: images beside --against; expected none: the golden names its own");
  }
  if (!a.write.empty() && a.images.empty()) throw UserError("--write: no images given; expected at least one");
  if (!(a.tolerance >= 0) || !std::isfinite(a.tolerance)) {
    throw UserError("--tolerance: {}; expected a finite number, 0 or more", a.tolerance);
  }
  require_thread_count(a.threads);
  Classifier classifier(a.model, {.threads = static_cast<int>(a.threads), .max_batch = 1, .backend = a.backend});
  return a.write.empty() ? hold_against(a, classifier) : write(a, classifier);
}

}  // namespace

Command add_verify(CLI::App& app) {
  auto a = std::make_shared<Arguments>();
  CLI::App* verb = app.add_subcommand("verify", "Prove pixels and logits equal to stored ones, or store them");
  verb->add_option("MODEL", a->model, "model file (.safetensors)")->required();
  verb->add_option("IMAGE", a->images, "with --write: files, folders, quoted patterns")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  verb->add_option("--against", a->against, "a golden file, or a folder with golden.json and its images")
      ->type_name("GOLDEN");
  verb->add_option("--write", a->write, "store what the model makes of the images here")->type_name("GOLDEN");
  verb->add_flag("--force", a->force, "with --write: replace GOLDEN if it is there");
  verb->add_option("--tolerance", a->tolerance, "of logits, as a share of an image's largest")->capture_default_str();
  verb->add_option("--threads", a->threads, "compute threads; 0: all CPUs there are, or OMP_NUM_THREADS if fewer")
      ->capture_default_str();
  verb->add_option("--backend", a->backend, "cpu or reference")->capture_default_str();
  verb->add_flag("--json", a->json, "print as JSON");
  verb->footer(
      "Exit code 1 and a table where something differs. The pixels compared are those before mean and std.\n"
      "Example: resnet verify best.safetensors photos/ --write golden.json\n"
      "         resnet verify best.safetensors --against golden.json");
  return [a] { return run_verify(*a); };
}

}  // namespace resnet::cli

#include "data/data_check.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "base/error.h"
#include "base/utf8.h"
#include "data/decode.h"
#include "data/image_folder.h"
#include "data/image_list.h"
#include "data/sha256.h"
#include "data/signals_blocked.h"

namespace resnet {

namespace {

using Kind = DataFinding::Kind;

/// One image: where it is, what it should be, and what looking at it gave.
struct Sample {
  std::string name;   ///< below the path that is checked
  int32_t split = 0;  ///< of Plan::splits
  int32_t label = 0;  ///< of Plan::classes
  // Found by a worker; `pixels` is 0 where the image could not be read.
  uint64_t pixels = 0;
  ImageInfo info;
  std::string error, damage;
};

/// What is to be checked.
struct Plan {
  std::string kind, root;
  std::vector<std::string> splits, classes;
  std::vector<Sample> samples;
  std::vector<Dataset> in_memory;  ///< a split each, where images are no files
  std::vector<std::string> ignored;
  std::vector<DataFinding> findings;         ///< that the layout alone shows
  std::vector<std::vector<bool>> has_class;  ///< [split][class]: there is a folder for it
};

int32_t class_number(Plan& plan, std::unordered_map<std::string, int32_t>& numbers, const std::string& name) {
  const auto [at, is_new] = numbers.emplace(name, static_cast<int32_t>(plan.classes.size()));
  if (is_new) plan.classes.push_back(name);
  return at->second;
}

/// Files that lie where class folders are expected, sorted; a scan never looks at them.
std::vector<std::string> files_beside_classes(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code unknown;
    if (!name.starts_with('.') && entry->is_regular_file(unknown)) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  return files;
}

Plan plan_folder(const std::string& path, const ScanProgress& progress) {
  Plan plan{.kind = "image folder", .root = path + "/"};
  for (const char* name : {"train", "val", "validation", "test"}) {
    struct stat status {};
    if (stat((plan.root + name).c_str(), &status) == 0 && S_ISDIR(status.st_mode)) plan.splits.emplace_back(name);
  }
  const bool bare = plan.splits.empty();
  if (bare) plan.splits.emplace_back("");
  std::vector<FolderScan> scans;
  std::set<std::string> names;  // of all splits, so that a class is the same number in each
  for (const std::string& split : plan.splits) {
    scans.push_back(scan_image_folder(bare ? path : plan.root + split, progress));
    names.insert(scans.back().class_names.begin(), scans.back().class_names.end());
  }
  std::unordered_map<std::string, int32_t> numbers;
  for (const std::string& name : names) class_number(plan, numbers, name);
  for (size_t s = 0; s < scans.size(); ++s) {
    const std::string prefix = bare ? "" : plan.splits[s] + "/";
    plan.has_class.emplace_back(plan.classes.size());
    for (const std::string& name : scans[s].class_names) {
      plan.has_class[s][static_cast<size_t>(numbers.at(name))] = true;
    }
    for (size_t i = 0; i < scans[s].files.size(); ++i) {
      plan.samples.push_back({.name = prefix + scans[s].files[i],
                              .split = static_cast<int32_t>(s),
                              .label = numbers.at(scans[s].class_names[static_cast<size_t>(scans[s].labels[i])])});
    }
    for (const std::string& file : scans[s].ignored) plan.ignored.push_back(prefix + file);
    for (const std::string& file : files_beside_classes(bare ? path : plan.root + plan.splits[s]))
      plan.ignored.push_back(prefix + file);
  }
  return plan;
}

Plan plan_list(const std::string& path) {
  const size_t slash = path.rfind('/');
  Plan plan{.kind = "list", .root = slash == std::string::npos ? "" : path.substr(0, slash + 1)};
  std::set<std::string> names;
  const std::vector<ListSplit> splits = image_list_splits(path);
  for (const ListSplit& split : splits) {
    for (const ListRow& row : split.rows) names.insert(row.label);
  }
  std::unordered_map<std::string, int32_t> numbers;
  for (const std::string& name : names) class_number(plan, numbers, name);
  for (const ListSplit& split : splits) {
    plan.has_class.emplace_back(plan.classes.size());
    for (const ListRow& row : split.rows) {
      const int32_t label = numbers.at(row.label);
      plan.has_class.back()[static_cast<size_t>(label)] = true;
      plan.samples.push_back({.name = row.path, .split = static_cast<int32_t>(plan.splits.size()), .label = label});
    }
    plan.splits.push_back(split.name);
  }
  return plan;
}

Plan plan_in_memory(const std::string& path, const char* kind) {
  Plan plan{.kind = kind};
  for (const Split split : {Split::train, Split::test}) {
    try {
      plan.in_memory.push_back(load_dataset(path, split));
    } catch (const Error& error) {
      if (error.code() != ExitCode::bad_data && error.code() != ExitCode::io) throw;
      // Where neither split is there, there is nothing to check.
      if (error.code() == ExitCode::io && split == Split::test && plan.in_memory.empty()) throw;
      plan.findings.push_back({Kind::unreadable, {}, error.what()});
      continue;
    }
    const Dataset& data = plan.in_memory.back();
    plan.classes = data.class_names;
    plan.has_class.emplace_back(plan.classes.size(), true);
    for (int64_t i = 0; i < data.count; ++i) {
      plan.samples.push_back({.name = fmt::format("{} image {}", name_of(split), i),
                              .split = static_cast<int32_t>(plan.splits.size()),
                              .label = data.labels[static_cast<size_t>(i)]});
    }
    plan.splits.emplace_back(name_of(split));
  }
  return plan;
}

Plan make_plan(const std::string& path, const ScanProgress& progress) {
  struct stat status {};
  if (stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) return plan_list(path);
  if (path.find('/') != std::string::npos || stat(path.c_str(), &status) == 0) {
    switch (kind_of_folder(path)) {
      case FolderKind::idx: return plan_in_memory(path, "idx");
      case FolderKind::cifar10: return plan_in_memory(path, "CIFAR-10");
      case FolderKind::cifar100: return plan_in_memory(path, "CIFAR-100");
      case FolderKind::list: return plan_list(list_in_folder(path));
      case FolderKind::images: return plan_folder(path, progress);
      case FolderKind::unknown: break;
    }
  }
  return plan_in_memory(path, "idx");  // a name; or load_dataset() says what it expected
}

uint64_t hash_of(const ImageView& image) {
  Sha256 hash;
  for (const int64_t size : {image.channels, image.height, image.width}) hash.add(size);
  hash.add(image.pixels.data(), image.pixels.size());
  return std::max<uint64_t>(hash.first_64_bits(), 1);  // 0 means unread
}

/// All of a plan's images, by several threads.
class Examination {
 public:
  Examination(Plan& plan, const DataCheckOptions& options) : plan_(plan), options_(options) {
    for (const Dataset& data : plan_.in_memory) {
      first_.push_back(first_.empty() ? 0 : first_.back() + previous_);
      previous_ = data.count;
    }
  }

  /// Returns how many were looked at.
  int64_t run() {
    std::vector<std::thread> threads;
    try {
      const SignalsBlocked blocked;
      for (int i = 0; i < std::max(options_.threads, 1); ++i) threads.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      if (threads.empty()) work();  // no thread could be started: then this one
    }
    {
      std::unique_lock lock(mutex_);
      while (running() && !ended_.wait_for(lock, std::chrono::milliseconds(100), [&] { return !running(); })) {
        lock.unlock();
        if (options_.stop != nullptr && *options_.stop != 0) stopping_ = true;
        if (options_.progress) options_.progress(done_, total());
        lock.lock();
      }
    }
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    return done_;
  }

 private:
  int64_t total() const { return static_cast<int64_t>(plan_.samples.size()); }
  bool running() const { return !failure_ && !stopping_ && done_ < total(); }

  void work() {
    std::vector<std::byte> bytes;
    try {
      while (!stopping_) {
        const int64_t index = next_++;
        if (index >= total()) break;
        examine(plan_.samples[static_cast<size_t>(index)], index, bytes);
        ++done_;
      }
    } catch (...) {
      const std::scoped_lock lock(mutex_);
      failure_ = std::current_exception();
      stopping_ = true;
    }
    const std::scoped_lock lock(mutex_);
    ended_.notify_all();
  }

  void examine(Sample& sample, int64_t index, std::vector<std::byte>& bytes) const {
    if (!plan_.in_memory.empty()) {
      const auto split = static_cast<size_t>(sample.split);
      sample.pixels = hash_of(plan_.in_memory[split].image(index - first_[split]));
      return;
    }
    const std::string path = sample.name.starts_with('/') ? sample.name : plan_.root + sample.name;
    try {
      read_image_bytes(path, bytes);
      sample.info = probe_image(bytes, sample.name);
      std::vector<std::string> damage;
      const Image image = decode_image(bytes, sample.name, {.damage = &damage});
      sample.pixels = hash_of(image.view());
      sample.damage = fmt::format("{}", fmt::join(damage, "; "));
    } catch (const Error& error) {
      if (error.code() == ExitCode::internal) throw;
      sample.error = error.what();
    }
  }

  Plan& plan_;
  const DataCheckOptions& options_;
  std::vector<int64_t> first_;  // of each split in memory: its first sample's index
  int64_t previous_ = 0;
  std::atomic<int64_t> next_{0}, done_{0};
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::exception_ptr failure_;
};

bool has_good_name(const std::string& name) {
  for (size_t at = 0; at < name.size();) {
    const std::optional<CodePoint> point = code_point_at(name, at);
    if (!point || !is_printable(point->value)) return false;
    at += point->bytes;
  }
  return true;
}

/// Groups of equal pixels: each is a leak, a contradiction or a plain duplicate.
void find_equal_pixels(const Plan& plan, std::vector<DataFinding>& findings) {
  std::vector<const Sample*> order;
  for (const Sample& sample : plan.samples) {
    if (sample.pixels != 0) order.push_back(&sample);
  }
  std::stable_sort(order.begin(), order.end(), [](const Sample* a, const Sample* b) { return a->pixels < b->pixels; });
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && order[end]->pixels == order[begin]->pixels) ++end;
    if (end - begin < 2) continue;
    std::vector<std::string> files;
    std::set<int32_t> splits, labels;
    std::set<std::pair<int32_t, int32_t>> places;
    for (size_t i = begin; i < end; ++i) {
      files.push_back(order[i]->name);
      splits.insert(order[i]->split);
      labels.insert(order[i]->label);
      places.insert({order[i]->split, order[i]->label});
    }
    const auto names = [](const std::vector<std::string>& all, const std::set<int32_t>& some) {
      std::vector<std::string> list;
      for (const int32_t i : some) list.push_back(escape_control(all[static_cast<size_t>(i)]));
      return fmt::format("{}", fmt::join(list, ", "));
    };
    if (splits.size() > 1) {
      findings.push_back({Kind::leak, files, "the same pixels in " + names(plan.splits, splits)});
    }
    if (labels.size() > 1) {
      findings.push_back({Kind::two_classes, files, "the same pixels in the classes " + names(plan.classes, labels)});
    }
    if (places.size() < files.size()) {
      findings.push_back({Kind::duplicate, files, "the same pixels more than once in a class"});
    }
  }
}

void find_missing_classes(const Plan& plan, const DataReport& report, std::vector<DataFinding>& findings) {
  for (size_t s = 0; s < plan.splits.size(); ++s) {
    const std::string prefix = plan.splits[s].empty() ? "" : plan.splits[s] + "/";
    for (size_t k = 0; k < plan.classes.size(); ++k) {
      const std::string path = prefix + plan.classes[k];
      if (!plan.has_class[s][k]) {
        const bool is_train = plan.splits[s] == "train";
        findings.push_back({Kind::classes,
                            {path},
                            is_train ? "a class that train lacks: it cannot be learnt, and evaluation refuses it"
                                     : fmt::format("a class that {} lacks", plan.splits[s])});
      } else if (report.splits[s].classes[k].images == 0 && plan.in_memory.empty()) {
        findings.push_back({Kind::empty_class, {path}, "a class without images"});
      }
    }
  }
}

void write_notes(const Plan& plan, DataReport& report) {
  const auto note = [&](std::string text) { report.notes.push_back(std::move(text)); };
  for (const DataReport::SplitCount& split : report.splits) {
    if (split.classes.size() < 2) continue;
    const auto [few, many] = std::minmax_element(split.classes.begin(), split.classes.end(),
                                                 [](const auto& a, const auto& b) { return a.images < b.images; });
    constexpr int64_t kUneven = 3;
    if (many->images <= kUneven * std::max<int64_t>(few->images, 1)) continue;
    note(fmt::format("{}classes are uneven: {} has {} images, {} has {}", split.name.empty() ? "" : split.name + ": ",
                     escape_control(many->name), many->images, escape_control(few->name), few->images));
  }
  const bool has_train = std::find(plan.splits.begin(), plan.splits.end(), "train") != plan.splits.end();
  if (!has_train || plan.splits.size() < 2)
    note(
        "resnet train wants training images and others to judge by: folders train and val (or test), or such a column");
  const auto is_number = [](const std::string& name) {
    return !name.empty() && name.size() < 10 &&
           std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
  };
  const bool all_numbers = std::all_of(plan.classes.begin(), plan.classes.end(), is_number);
  const auto by_value = [](const std::string& a, const std::string& b) { return std::stol(a) < std::stol(b); };
  if (plan.kind == "image folder" && all_numbers &&
      !std::is_sorted(plan.classes.begin(), plan.classes.end(), by_value)) {
    note("classes are numbered by the bytes of their names, as torchvision does: 10 comes before 2");
  }
  if (report.turned > 0) {
    note(fmt::format("{} images carry an EXIF orientation, which training ignores without --exif-orientation",
                     report.turned));
  }
  if (const auto clipped = report.modes.find("I;16"); clipped != report.modes.end()) {
    note(fmt::format("{} grey images have 16 bits; values above 255 become 255, as with Pillow's convert()",
                     clipped->second));
  }
  if (report.modes.size() > 1) note("images have different modes; all are read as grey or all as RGB");
  if (!plan.ignored.empty()) {
    std::vector<std::string> first;
    for (const std::string& file : plan.ignored) {
      if (first.size() < 3) first.push_back(escape_control(file));
    }
    note(fmt::format("{} files are no images, or lie in no class folder, and are left out: {}{}", plan.ignored.size(),
                     fmt::join(first, ", "), plan.ignored.size() > first.size() ? ", ..." : ""));
  }
}

}  // namespace

const char* name_of(DataFinding::Kind kind) {
  switch (kind) {
    case Kind::unreadable: return "unreadable";
    case Kind::damaged: return "damaged";
    case Kind::leak: return "leak";
    case Kind::two_classes: return "two_classes";
    case Kind::duplicate: return "duplicate";
    case Kind::empty_class: return "empty_class";
    case Kind::classes: return "classes";
    case Kind::name: return "name";
  }
  throw InternalError("data_check: a finding without a name");
}

DataReport check_data(const std::string& path_given, const DataCheckOptions& options) {
  std::string path = path_given;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  Plan plan = make_plan(path, options.scan_progress);
  const auto start = std::chrono::steady_clock::now();
  DataReport report;
  report.path = path;
  report.kind = plan.kind;
  report.images = static_cast<int64_t>(plan.samples.size());
  report.checked = Examination(plan, options).run();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const std::string& name : plan.splits) {
    report.splits.push_back({.name = name});
    for (const std::string& class_name : plan.classes) report.splits.back().classes.push_back({.name = class_name});
  }
  report.findings = std::move(plan.findings);
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    Sample& sample = plan.samples[i];
    DataReport::SplitCount& split = report.splits[static_cast<size_t>(sample.split)];
    ++split.images;
    ++split.classes[static_cast<size_t>(sample.label)].images;
    if (!sample.error.empty()) report.findings.push_back({Kind::unreadable, {sample.name}, sample.error});
    if (!sample.damage.empty()) report.findings.push_back({Kind::damaged, {sample.name}, sample.damage});
    if (!has_good_name(sample.name)) {
      report.findings.push_back({Kind::name, {sample.name}, "a path that is not UTF-8 or has control characters"});
    }
    if (sample.pixels == 0 || !plan.in_memory.empty()) continue;
    ++report.formats[name_of(sample.info.format)];
    ++report.modes[sample.info.mode];
    ++report.sizes[{sample.info.width, sample.info.height}];
    report.turned += sample.info.orientation != 1;
  }
  for (const Dataset& data : plan.in_memory) {
    report.modes[data.channels == 1 ? "L" : "RGB"] += data.count;
    report.sizes[{data.width, data.height}] += data.count;
  }
  for (const std::string& name : plan.classes) {
    if (plan.kind == "list" && !has_good_name(name)) {
      report.findings.push_back({Kind::name, {name}, "a class's name that is not UTF-8 or has control characters"});
    }
  }
  find_equal_pixels(plan, report.findings);
  find_missing_classes(plan, report, report.findings);
  std::stable_sort(report.findings.begin(), report.findings.end(), [](const DataFinding& a, const DataFinding& b) {
    return std::tie(a.kind, a.files) < std::tie(b.kind, b.files);
  });
  write_notes(plan, report);
  return report;
}

}  // namespace resnet

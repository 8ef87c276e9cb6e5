#include "backends/cpu/tuning_cache.h"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/cache_directory.h"
#include "base/format.h"
#include "base/rng.h"

namespace resnet::cpu {
namespace {

std::map<std::string, std::string> read_choices(const std::string& path) {
  std::error_code unknown;
  if (!std::filesystem::is_regular_file(path, unknown)) return {};  // a pipe would be waited for
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file, nullptr, false);
  std::map<std::string, std::string> choices;
  if (!json.is_object()) return choices;
  for (const auto& [problem, algorithm] : json.items()) {
    if (algorithm.is_string()) choices[problem] = algorithm.get<std::string>();
  }
  return choices;
}

}  // namespace

TuningCache::TuningCache(const std::string& machine) {
  const std::filesystem::path directory = cache_directory();
  if (directory.empty()) return;
  path_ = directory / fmt::format("algorithms-{:016x}.json", hash_text(machine));
  known_ = read_choices(path_);
}

std::optional<std::string> TuningCache::find(const std::string& problem) const {
  for (const auto* choices : {&adopted_, &known_}) {
    if (auto found = choices->find(problem); found != choices->end()) return used_[problem] = found->second;
  }
  return std::nullopt;
}

void TuningCache::remember(const std::string& problem, const std::string& algorithm) {
  adopted_.erase(problem);  // it could not be followed
  known_[problem] = decided_[problem] = used_[problem] = algorithm;
  const std::string failure = save();
  if (failure.empty() || warned_) return;
  warned_ = true;
  warnings_.push_back(fmt::format(
      "{}: {}; the next run must measure the algorithms again: set XDG_CACHE_HOME to a directory that can be written",
      path_, failure));
}

void TuningCache::adopt(const std::map<std::string, std::string>& choices) { adopted_ = choices; }

std::string TuningCache::save() const {
  if (path_.empty()) return {};
  // Another process may have measured other problems meanwhile: keep its answers too, but for what was decided here.
  std::map<std::string, std::string> merged = read_choices(path_);
  merged.insert(known_.begin(), known_.end());
  for (const auto& [problem, algorithm] : decided_) merged[problem] = algorithm;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path_).parent_path(), error);  // opening tells if it failed
  static std::atomic<uint64_t> saves{0};  // two threads of a process may save at once
  const std::string temporary = fmt::format("{}.{}.{}.tmp", path_, ::getpid(), saves++);
  errno = 0;
  std::ofstream file(temporary);
  file << nlohmann::json(merged).dump(1) << '\n';
  file.close();
  if (file) {
    std::filesystem::rename(temporary, path_, error);
  } else {
    error = std::error_code(errno == 0 ? EIO : errno, std::generic_category());
  }
  if (!error) return {};
  std::error_code ignored;
  std::filesystem::remove(temporary, ignored);
  return "cannot write: " + error.message();
}

}  // namespace resnet::cpu

#pragma once
// Which algorithm won for which problem: measured once, then remembered on disk under
// XDG_CACHE_HOME/resnet, in a file named after everything that could change the answer.

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace resnet::cpu {

class TuningCache {
 public:
  /// `machine` names CPU, instruction set, threads and library versions. A missing, unreadable or
  /// damaged file only means measuring again.
  explicit TuningCache(const std::string& machine);

  std::optional<std::string> find(const std::string& problem) const;
  /// Remembers, whatever was known or adopted before, and writes the file (temporary file and rename, so readers never
  /// see half of it). A file that cannot be written is a warning, once.
  void remember(const std::string& problem, const std::string& algorithm);

  const std::map<std::string, std::string>& used() const { return used_; }
  /// Goes back to an earlier used(): what was asked since then were trials, by which nothing runs.
  void set_used(std::map<std::string, std::string> used) { used_ = std::move(used); }
  void adopt(const std::map<std::string, std::string>& choices);

  /// The warnings since the last call.
  std::vector<std::string> take_warnings() { return std::exchange(warnings_, {}); }

 private:
  /// What failed; empty when the file is written.
  std::string save() const;

  std::string path_;                            ///< empty: no cache directory can be found
  std::map<std::string, std::string> known_;    ///< the file's and our own
  std::map<std::string, std::string> decided_;  ///< our own
  std::map<std::string, std::string> adopted_;
  std::vector<std::string> warnings_;
  bool warned_ = false;
  mutable std::map<std::string, std::string> used_;
};

}  // namespace resnet::cpu

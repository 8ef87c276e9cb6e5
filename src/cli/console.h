#pragma once
// What goes to the terminal: one place for progress lines, tables and the rules about them.

#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace resnet::cli {

/// "1h 02m", "3m 05s", "12s".
std::string duration(double seconds);
/// "1.21 GB", "45.3 MB": decimal units.
std::string bytes(size_t count);
/// 11178378 -> "11,178,378".
std::string grouped(int64_t number);

/// A line on stderr that is rewritten in place on a terminal; elsewhere a plain line now and then, and
/// none of what takes less than two seconds. Control characters that a name brought along are escaped.
class Progress {
 public:
  Progress();
  ~Progress() { clear(); }
  void update(const std::string& text);
  /// Removes the live line, so that something else can be printed.
  void clear();
  /// A line that stays.
  void print(const std::string& line);

 private:
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_;  ///< not before, a line
};

/// Shows on `progress`, which must outlive it, what goes on before a program can run: "WHAT DONE/TOTAL".
std::function<void(const std::string& what, int done, int total)> preparing(Progress& progress);

/// Code points of `text`, for aligning; a byte that is no UTF-8 counts as one.
size_t characters(const std::string& text);

/// Whether MODEL on the command line is a file rather than an architecture's name.
bool is_model_file(const std::string& model);

/// How the last column of a table stands.
enum class LastColumn { as_others, left };

/// Columns padded to their widest cell; the first `left` columns are left-aligned, the others right, but for a last
/// column of words. Control characters are escaped.
std::string table(std::vector<std::vector<std::string>> rows, size_t left = 1, LastColumn last = LastColumn::as_others);

}  // namespace resnet::cli

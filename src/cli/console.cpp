#include "cli/console.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "base/error.h"
#include "base/utf8.h"

namespace resnet::cli {

std::string duration(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  const auto s = static_cast<int64_t>(std::llround(seconds));
  if (s >= 3600) return fmt::format("{}h {:02}m", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{}m {:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::string bytes(size_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) return fmt::format("{:.2f} GB", value / 1e9);
  if (value >= 1e6) return fmt::format("{:.1f} MB", value / 1e6);
  return fmt::format("{:.1f} kB", value / 1e3);
}

std::string grouped(int64_t number) {
  std::string text = std::to_string(number);
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > (number < 0 ? 1 : 0); at -= 3)
    text.insert(static_cast<size_t>(at), ",");
  return text;
}

Progress::Progress()
    : terminal_(::isatty(STDERR_FILENO) == 1),
      next_(std::chrono::steady_clock::now() + std::chrono::seconds(terminal_ ? 0 : 2)) {}

void Progress::update(const std::string& text) {
  const std::string line = escape_control(text);
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return;
  next_ = now + (terminal_ ? std::chrono::milliseconds(100) : std::chrono::milliseconds(10000));
  if (!terminal_) {
    std::fprintf(stderr, "%s\n", line.c_str());
    return;
  }
  winsize size{};
  const size_t width = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1u : 79u;
  std::fprintf(stderr, "\r\033[K%s", line.substr(0, width).c_str());
  std::fflush(stderr);
  shown_ = true;
}

void Progress::clear() {
  if (shown_) std::fprintf(stderr, "\r\033[K");
  shown_ = false;
}

void Progress::print(const std::string& line) {
  clear();
  std::fprintf(stderr, "%s\n", escape_control(line).c_str());
}

std::function<void(const std::string& what, int done, int total)> preparing(Progress& progress) {
  return [&progress](const std::string& what, int done, int total) {
    progress.update(fmt::format("{} {}/{}", what, done, total));
  };
}

bool is_model_file(const std::string& model) {
  std::error_code unreadable;  // such as a name that is too long: then no architecture has it either
  return model.ends_with(".safetensors") || model.ends_with(".pth") || model.ends_with(".pt") ||
         std::filesystem::exists(model, unreadable);
}

size_t characters(const std::string& text) {
  size_t count = 0;
  for (size_t at = 0; at < text.size(); ++count) {
    const auto point = code_point_at(text, at);
    at += point ? point->bytes : 1;
  }
  return count;
}

std::string table(std::vector<std::vector<std::string>> rows, size_t left, LastColumn last) {
  std::vector<size_t> widths;
  for (auto& row : rows) {
    for (std::string& cell : row) cell = escape_control(cell);
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], characters(row[i]));
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += i ? "  " : "";
      const std::string blanks(widths[i] - characters(row[i]), ' ');
      const bool words = i < left || (last == LastColumn::left && i + 1 == widths.size());
      line += words ? row[i] + blanks : blanks + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace resnet::cli

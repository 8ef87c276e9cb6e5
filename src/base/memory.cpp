#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>

#include "base/control_groups.h"
#include "base/error.h"
#include "base/system_file.h"

namespace resnet {
namespace {

/// The number at the text's start, after blanks.
std::optional<size_t> number(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  return value;
}

/// What follows `key` in the line that starts with it.
std::optional<std::string_view> line_after(std::string_view text, std::string_view key) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    if (line.substr(0, key.size()) == key) return line.substr(key.size());
    text.remove_prefix(std::min(line.size() + 1, text.size()));
  }
  return std::nullopt;
}

std::string readable(double bytes) {
  if (bytes < 1 << 30) return fmt::format("{:.1f} MiB", bytes / (1 << 20));
  return fmt::format("{:.1f} GiB", bytes / (1 << 30));
}

}  // namespace

std::optional<size_t> machine_memory(std::string_view meminfo) {
  const auto value = line_after(meminfo, "MemAvailable:");
  if (!value) return std::nullopt;
  const auto kib = number(*value);
  if (!kib || *kib > SIZE_MAX / 1024) return std::nullopt;
  return *kib * 1024;
}

std::optional<size_t> group_memory(std::string_view limit, std::string_view held, std::string_view stat) {
  const auto most = number(limit);  // "max" is no number
  const auto taken = number(held);
  if (!most || !taken) return std::nullopt;
  size_t cache = 0;
  for (const std::string kind : {"active_file ", "inactive_file "}) {
    auto value = line_after(stat, "total_" + kind);  // version 1 tells of the group alone beside it
    if (!value) value = line_after(stat, kind);
    if (value) cache += number(*value).value_or(0);
  }
  return *most - std::min(*most, *taken - std::min(*taken, cache));
}

size_t available_memory() {
  size_t available = machine_memory(system_file("/proc/meminfo")).value_or(SIZE_MAX);
  for (const ControlGroup& group : control_groups("memory")) {
    const bool first = group.version == 1;
    const auto room =
        group_memory(group.text(first ? "memory.limit_in_bytes" : "memory.max"),
                     group.text(first ? "memory.usage_in_bytes" : "memory.current"), group.text("memory.stat"));
    available = std::min(available, room.value_or(SIZE_MAX));
  }
  return available;
}

void require_memory(double needed, size_t available) {
  const auto bytes = static_cast<double>(available);
  if (needed <= bytes) return;
  throw ResourceError(ExitCode::limit,
                      "memory: the program needs {}, {} is available; try a smaller batch or image size",
                      readable(needed), readable(bytes));
}

}  // namespace resnet

#include "base/error.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace resnet {

ResourceError io_error(const std::string& path, const char* what, int error_number) {
  return ResourceError(ExitCode::io, "{}: cannot {}: {}", path, what, std::strerror(error_number));
}

std::string escape_control(const std::string& text) {
  std::string out;
  for (unsigned char c : text) {
    if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return out;
}

namespace {

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_names(const std::string& name, const std::vector<std::string>& candidates, int most) {
  // A name longer than any of ours is no typing slip: comparing only its head bounds the work.
  const std::string head = name.substr(0, 64);
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const std::string& candidate : candidates) ranked.emplace_back(edit_distance(head, candidate), candidate);
  std::sort(ranked.begin(), ranked.end());
  std::string out;
  for (size_t i = 0; i < ranked.size() && i < static_cast<size_t>(most); ++i) {
    out += (i ? ", " : "") + ranked[i].second;
  }
  return out;
}

}  // namespace resnet

#include "serve/image_paths.h"

#include <fcntl.h>
#include <glob.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <span>

#include "base/error.h"
#include "data/decode.h"
#include "formats/file_io.h"

namespace resnet {

namespace {

namespace fs = std::filesystem;

bool has_image_name(const fs::path& path) {
  std::string ending = path.extension().string();
  for (char& c : ending) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return ending == ".jpg" || ending == ".jpeg" || ending == ".png" || ending == ".webp";
}

/// What cannot be opened is no image here: a README without permission is nobody's concern.
bool has_image_content(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  std::array<std::byte, 16> head{};
  const ssize_t got = file.value() < 0 ? -1 : ::read(file.value(), head.data(), head.size());
  return got > 0 && looks_like_image(std::span(head).first(static_cast<size_t>(got)));
}

/// The images in a folder and below it, in any order. `on_failure` hears of folders below that cannot be read.
void add_images(const std::string& folder, std::vector<std::string>& found, const FolderFailure& on_failure) {
  std::vector<std::string> below;
  std::error_code error;
  for (fs::directory_iterator at(folder, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    const std::string path = at->path().string();
    if (at->path().filename().string().starts_with('.')) continue;
    std::error_code unknown;  // a link to nothing is no file
    if (fs::is_directory(at->symlink_status(unknown))) {
      below.push_back(path);
    } else if (at->is_regular_file(unknown) && (has_image_name(at->path()) || has_image_content(path))) {
      found.push_back(path);
    }
  }
  if (error) throw io_error(escape_control(folder), "read the folder", error.value());
  for (const std::string& path : below) {
    try {
      add_images(path, found, on_failure);
    } catch (const ResourceError& failure) {
      if (!on_failure) throw;
      on_failure(failure);
    }
  }
}

std::vector<std::string> images_below(const std::string& folder, const FolderFailure& on_failure) {
  std::vector<std::string> found;
  bool failed = false;
  const FolderFailure hear = [&](const ResourceError& failure) {
    failed = true;
    on_failure(failure);
  };
  add_images(folder, found, on_failure ? hear : on_failure);
  if (found.empty() && !failed) {
    throw ResourceError(ExitCode::io, "{}: no image in this folder or below; expected JPEG, PNG or WebP files",
                        escape_control(folder));
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  glob_t matches{};
  const std::unique_ptr<glob_t, decltype(&globfree)> owner(&matches, &globfree);
  const int result = ::glob(pattern.c_str(), GLOB_NOSORT, nullptr, &matches);
  if (result == GLOB_NOMATCH) {
    throw ResourceError(ExitCode::io, "{}: no file matches; expected a file, a folder or a pattern of files",
                        escape_control(pattern));
  }
  if (result != 0) throw ResourceError(ExitCode::limit, "{}: cannot be matched", escape_control(pattern));
  std::vector<std::string> paths(matches.gl_pathv, matches.gl_pathv + matches.gl_pathc);
  std::sort(paths.begin(), paths.end());  // by bytes, not by the locale's rules
  return paths;
}

}  // namespace

std::vector<std::string> image_paths(const std::string& argument, const FolderFailure& on_failure) {
  std::error_code unknown;
  const fs::file_status status = fs::status(argument, unknown);
  if (fs::is_directory(status)) return images_below(argument, on_failure);
  if (fs::exists(status) || argument.find_first_of("*?[") == std::string::npos) return {argument};
  std::vector<std::string> paths;
  for (const std::string& match : matches_of(argument)) {
    if (!fs::is_directory(match, unknown)) {
      paths.push_back(match);
      continue;
    }
    const std::vector<std::string> below = images_below(match, on_failure);
    paths.insert(paths.end(), below.begin(), below.end());
  }
  return paths;
}

}  // namespace resnet

#pragma once
// Which image files a user means: files, folders, patterns, lists.

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"

namespace resnet {

using FolderFailure = std::function<void(const ResourceError& failure)>;

/// The files behind `argument`, which is the first of these that fits:
///   a file: itself, whatever it holds;
///   a folder: the files in it and below it that have an image's name (.jpg .jpeg .png .webp, in any case) or an
///     image's first bytes, sorted by their paths' bytes; hidden names (.thumbnails) are passed over and symbolic links
///     to folders not entered;
///   a pattern with * ? or [...], as the shell's: what matches, sorted by bytes, folders as above;
///   anything else: itself, so that whoever opens it says that it is missing.
/// Throws ResourceError io: a folder or a pattern without an image, a folder that cannot be read. Of one below it,
/// `on_failure` hears instead, where it is given, and the others' images are the result.
std::vector<std::string> image_paths(const std::string& argument, const FolderFailure& on_failure = {});

}  // namespace resnet

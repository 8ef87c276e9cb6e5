#pragma once
// Folders of images by class, as torchvision's ImageFolder reads them: SPLIT/CLASS/any/depth/name.jpg.

#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace resnet {

/// What a folder of classes holds. Order: classes sorted by the bytes of their names; in a class, folders by their path
/// and files by their name (torchvision's make_dataset).
struct FolderScan {
  std::vector<std::string> class_names;
  std::vector<std::string> files;    ///< "CLASS/..." below the folder
  std::vector<int64_t> file_bytes;   ///< of each
  std::vector<int32_t> labels;       ///< of each
  std::vector<std::string> ignored;  ///< files that are no images, by name and content; hidden ones are not listed
};

/// The folders directly in `folder`, hidden ones left out, sorted by the bytes of their names.
/// Throws ResourceError io when it cannot be read.
std::vector<std::string> class_folders(const std::string& folder);

/// Every image of a folder of classes. A file is an image when its name ends as torchvision's do (.jpg .jpeg .png .webp
/// .bmp .ppm .pgm .tif .tiff, any case) or its first bytes are those of a JPEG, PNG or WebP file; only decoding tells
/// what it is. Names that begin with a dot are left out (torchvision takes them). Links are followed, into a folder
/// that contains them not. Throws ResourceError io (a folder that cannot be read).
FolderScan scan_image_folder(const std::string& folder, const ScanProgress& progress = {});

/// A folder with a folder for each class, and whose images are in it.
struct SplitFolder {
  std::string path;
  Split split;
};

/// The sub-folder that holds a split: train; val or validation, else test; test, else val or validation. Nothing where
/// there is none.
std::optional<SplitFolder> split_folder(const std::string& folder, Split split);

/// Whether the folder has one of the sub-folders train, val, validation, test, or else any sub-folder: classes without
/// a split, which serve as its test images.
bool is_image_folder(const std::string& folder);

/// A split of a folder of images. Its classes are those of the training folder, where there is one.
/// Throws what scan_image_folder does, ResourceError io (no such split), UserError bad_data (no classes; a training
/// class without images; a class that the training folder lacks).
Dataset load_image_folder(const std::string& folder, Split split, const ScanProgress& progress = {});

}  // namespace resnet

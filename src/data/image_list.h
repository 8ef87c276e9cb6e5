#pragma once
// Lists of images with labels, a line each: "path,label" or "path,label,split"; tabs or, where a file has neither,
// the last space of a line may stand for the comma.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"

namespace resnet {

struct ListRow {
  std::string path;     ///< as written
  std::string label;    ///< a class's name or number
  std::string split;    ///< "train", "val", "validation", "test", or empty
  uint64_t line = 0;    ///< from 1
  uint64_t offset = 0;  ///< of the line's first byte
};

/// The rows of a list. CSV's quotes are understood ("a, ""b"".jpg"), as are CR LF, a byte order mark, empty lines, and
/// a header, which is a first line whose first field is path, file, filename, image, name or the like. Throws UserError
/// bad_data with line, byte and field.
std::vector<ListRow> parse_image_list(std::string_view text, const std::string& name);

/// The rows of one split: of a list with a third column by that, of train.EXT and the lists beside it by their names.
/// Any other list has one split, without a name.
struct ListSplit {
  std::string name;  ///< "train", "val", "validation", "test" or ""
  std::vector<ListRow> rows;
};

/// All splits of a list, the empty ones left out. Throws as load_image_list().
std::vector<ListSplit> image_list_splits(const std::string& path);

/// A split of a list. Paths are relative to the list's folder. Labels that are all whole numbers (at most 99,999) are
/// the classes 0 to the largest of them; other labels are names, numbered in the order of their bytes. Which rows:
/// - with a third column, those of the split (test: else those of val or validation, and the other way round);
/// - of a list called train.EXT: all for training; for the others val.EXT, validation.EXT or test.EXT beside it;
/// - of any other list: all, for training as for testing, and none for validation.
/// Classes are those of the training rows where there are any. `path` may also be a folder that holds train.csv.
/// Throws UserError bad_data, ResourceError io (also for the first file that is missing, unless `missing_files`).
Dataset load_image_list(const std::string& path, Split split, bool missing_files);

}  // namespace resnet

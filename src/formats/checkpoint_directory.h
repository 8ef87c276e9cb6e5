#pragma once
// A checkpoint is one directory, committed by one rename, so that a kill or a power cut between any two
// system calls leaves the old checkpoint or the new one behind `last`, whole:
//
//   RUN/.tmp-PID-N/   every file, then manifest.json with size and SHA-256 of each; all synced, then the directory
//   RUN/step-N/       the same directory after the rename; RUN synced
//   RUN/last          a symlink to step-N, replaced by renaming a new symlink over it; RUN synced
//
// and only then are older step-* and left-over .tmp-* removed. One process writes a run directory at a time.
//
// The first save has no old checkpoint. A kill after its first rename leaves a whole step-N that `last` does not name
// yet: without any `last`, readers take the newest step-* that is intact.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "formats/file_io.h"

namespace resnet {

struct CheckpointContent {
  int64_t step = 0;
  /// File name (no '/') -> its bytes. A writer runs a second time when a checkpoint of the same step with other
  /// content is replaced.
  std::map<std::string, ContentWriter> files;
  /// How many checkpoints stay, this one included. Those of later steps (training went back) are left alone.
  int keep = 2;
};

/// Commits `content` as RUN/step-N and points RUN/last to it. On an exception `last` still names a whole checkpoint,
/// the old one or the new, and no half-written one is left. Throws io_error (exit code 4; a full disk too), and
/// UserError(refused, 8) when `last` or `step-N` is something this protocol did not make.
void commit_checkpoint(const std::string& run_directory, const CheckpointContent& content);

struct CheckpointFile {
  std::string name;
  uint64_t size = 0;
  std::string sha256;
};

/// A verified checkpoint.
struct Checkpoint {
  std::string directory;  // canonical: not `last`, which may move on
  int64_t step = 0;
  std::vector<CheckpointFile> files;

  std::string path_of(const std::string& name) const { return directory + "/" + name; }
};

/// `path` is a run directory, a `last` or a checkpoint itself. Of a run directory `last` is taken, or, where a kill
/// during the first save left none, the newest step-* that is intact. Every file is read and compared with the
/// manifest. Throws bad_data (exit code 3) naming the file that is missing, of the wrong size or of the wrong hash;
/// io_error (4) when there is no checkpoint. It never takes another one instead of a `last` that is there or a
/// checkpoint that was named: the message names those beside it that are intact.
Checkpoint open_checkpoint(const std::string& path);

/// Whether a checkpoint was ever committed here: there is a `last` or any directory step-N, intact or not. False for a
/// missing directory; io_error (4) for one that cannot be looked into.
bool holds_checkpoint(const std::string& run_directory);

/// `last` names `checkpoint`, one of the run's, from here on: training goes back to it. Throws io_error (4),
/// and UserError (refused, 8) for a checkpoint of another run.
void make_last(const std::string& run_directory, const Checkpoint& checkpoint);

}  // namespace resnet

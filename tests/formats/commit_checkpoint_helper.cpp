// Commits one checkpoint, for tests that kill it or make its system calls fail.
// Usage: commit_checkpoint_helper RUN STEP SALT   (content is checkpoint_content(STEP, SALT), two are kept)
// Calls access("/commit begins") and access("/commit ends") around the commit: marks in a trace. Exits with the Error's
// code.

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "base/error.h"
#include "formats/checkpoint_content.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const resnet::CheckpointContent content = resnet::checkpoint_content(std::atoll(argv[2]), argv[3]);
  int code = 0;
  (void)!access("/commit begins", F_OK);
  try {
    resnet::commit_checkpoint(argv[1], content);
  } catch (const resnet::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    code = static_cast<int>(error.code());
  }
  (void)!access("/commit ends", F_OK);
  return code;
}

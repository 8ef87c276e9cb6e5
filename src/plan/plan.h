#pragma once
// A plan is data: which kernels run in which order, and where every buffer lies in one arena.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "plan/backend.h"

namespace resnet {

/// One buffer. States live outside the arena (they outlast the program); all else is inside.
struct Buffer {
  ValueInfo value;
  std::string state;  ///< the state's name; empty for arena buffers
  size_t bytes = 0;
  size_t offset = 0;  ///< into the arena
  int first = 0;      ///< first and last step that touch it
  int last = 0;
};

struct Step {
  int32_t node = 0;
  std::vector<int> in;   ///< buffers
  std::vector<int> out;  ///< buffers
  int scratch = -1;      ///< buffer, or -1
  std::unique_ptr<Kernel> kernel;
  Cost cost;
};

struct Plan {
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  std::map<std::string, int> inputs;   ///< name -> buffer
  std::map<std::string, int> outputs;  ///< name -> buffer
  std::vector<int> states;             ///< buffers with a state name
  size_t arena_bytes = 0;
};

/// Progress of what takes seconds before a program can run: what is done ("choosing kernels"), how many of it are done,
/// and of how many.
using PlanProgress = std::function<void(const std::string& what, int done, int total)>;

/// Orders the work, picks layouts and kernels, and places every buffer. Throws UserError when the
/// backend cannot run a node (with its reason), and ResourceError (limit) before any kernel is made when the values
/// of one node alone pass `memory` bytes. The plan is checked: two buffers alive at the same step never share bytes.
Plan make_plan(const Graph& graph, Backend& backend, const PlanProgress& progress = {}, size_t memory = SIZE_MAX);

/// Bytes that a step reads and writes: its inputs, those it reads packed as they are packed, and its outputs.
size_t bytes_moved(const Plan& plan, const Step& step);

/// One line a step: op, name, algorithm, bytes, offset, flops; then the arena's size.
std::string print(const Graph& graph, const Plan& plan);

}  // namespace resnet

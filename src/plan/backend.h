#pragma once
// What the planner asks of a backend: can you run this node, how should this value lie in memory, and
// make me the kernel. A backend answers before anything runs, with a reason a person can act on.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "plan/layout.h"

namespace resnet {

/// A value as a backend sees it.
struct ValueInfo {
  TensorType type;
  Layout layout;
};

/// One node with the layouts of everything around it. `constant[i]` tells that input i is a state that
/// no assignment of the graph changes, so that a kernel may prepare it once (see Kernel::packing).
/// `used[i]` tells that somebody reads output i; another need not be written. `depth` counts the nodes on the longest
/// way through the program: each adds its rounding.
struct NodeRequest {
  const OpDef& op;
  const Attributes& attributes;
  std::span<const ValueInfo> in;
  std::span<const ValueInfo> out;
  std::span<const char> constant;
  std::span<const char> used;
  std::string_view name;
  int64_t depth = 0;
};

struct Support {
  bool ok = true;
  std::string reason;
  static Support yes() { return {}; }
  static Support no(std::string why) { return {false, std::move(why)}; }
};

struct KernelCall {
  std::span<const void* const> in;
  std::span<void* const> out;
  void* scratch = nullptr;       ///< scratch_bytes() bytes, 64-byte aligned, contents undefined
  const void* packed = nullptr;  ///< what pack() wrote, for a kernel with a packing()
};

/// A constant input in a form of a kernel's own: transformed or reordered weights.
struct Packing {
  size_t input = 0;  ///< of the node
  /// Names the form. Equal forms of one state are equal bytes, so all kernels of a session share one copy.
  std::string form;
  size_t bytes = 0;
};

/// A node made ready to run; run() may be called any number of times. The cpu backend's kernels allocate nothing in
/// it (a call of oneDNN makes a small table of its arguments, OpenMP one of a team within a stream); the reference
/// loops may.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual size_t scratch_bytes() const { return 0; }
  /// The algorithm for the plan dump, e.g. "winograd f4", "onednn jit:avx2".
  virtual std::string algorithm() const = 0;
  virtual void run(const KernelCall& call) = 0;
  /// Floating-point operations of a run, where the algorithm does others than the op counts (a multiply-add is two).
  virtual std::optional<double> flops() const { return std::nullopt; }
  /// The constant input that the kernel reads in a form of its own. run() gets it as `packed`, and null in place of the
  /// input, which need not exist any longer.
  virtual std::optional<Packing> packing() const { return std::nullopt; }
  /// Writes packing()->bytes to `packed`, 64-byte aligned, from the input as it lies.
  virtual void pack(const void* input, void* packed) { static_cast<void>(input), static_cast<void>(packed); }
  /// Bytes that the kernel itself holds, prepared from constant inputs outside of packing().
  virtual size_t held_bytes() const { return 0; }
  /// Constant inputs have new contents: forget what was prepared from them.
  virtual void constants_changed() {}
};

/// Who makes and reads a value decides its layout: an image read by convolutions alone stays as it was
/// fed. (A result that an op may write over its input always takes that input's layout; the planner
/// asks only for the others.)
struct ValueRole {
  NodeKind kind = NodeKind::op;     ///< of the producer
  const OpDef* producer = nullptr;  ///< null for leaves
  std::span<const OpDef* const> readers;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;
  /// What results may depend on beside the program: processor, instruction set, threads, library versions.
  virtual std::string identity() const = 0;
  virtual Support supports(const NodeRequest& request) const = 0;
  virtual Layout layout(const TensorType& type, const ValueRole& role) const = 0;
  /// Chooses an algorithm (by measurement where there are several) and builds the kernel.
  virtual std::unique_ptr<Kernel> prepare(const NodeRequest& request) = 0;
  /// Whether what is prepared from now on is to save memory, where that costs little time.
  virtual void save_memory(bool on) { static_cast<void>(on); }
  /// Programs that one thread each can run at once, instead of one that all threads run together.
  virtual int streams() const { return 1; }
  /// Whether what is prepared from now on is a stream's: it computes on the one thread that runs it.
  virtual void for_stream(bool on) { static_cast<void>(on); }
  /// Calls run(0) to run(count - 1) at once, each on a thread of its own, where kernels of streams may run and no
  /// others; count is 1 to streams(). The first exception that one of them throws comes out when all are done.
  virtual void run_streams(int count, const std::function<void(int)>& run) {
    for (int i = 0; i < count; ++i) run(i);
  }
  /// The kernels of a program that is no stream's are about to run, on this thread.
  virtual void before_run() {}

  /// The choices made so far (problem -> algorithm), and choices to follow instead of measuring: a
  /// resumed run adopts its checkpoint's, for another algorithm would round differently.
  virtual std::map<std::string, std::string> choices() const { return {}; }
  virtual void adopt(const std::map<std::string, std::string>& choices) { static_cast<void>(choices); }

  /// Whether choices are made by measurement at all; if not, nothing is recalled or remembered.
  virtual bool measures() const { return false; }
  /// A choice that was measured above the backend, about a whole program, kept among its own.
  virtual std::optional<std::string> recall(const std::string& problem) const {
    static_cast<void>(problem);
    return std::nullopt;
  }
  virtual void remember(const std::string& problem, const std::string& choice) {
    static_cast<void>(problem), static_cast<void>(choice);
  }

  /// What went wrong without stopping anything, for the user to hear once: each call gives what is new since the last.
  virtual std::vector<std::string> take_warnings() { return {}; }
};

}  // namespace resnet

#pragma once
// Runs plans: the states that outlast a step, the forms in which kernels read them, an arena that all programs of a
// session share, and the programs. Only one program runs at a time, but for those of streams, which have an arena each.

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_memory.h"
#include "base/error.h"
#include "base/tensor.h"
#include "plan/plan.h"

namespace resnet {

class Session;

/// Memory of the session's own, or memory that is somebody else's and is only read.
class ConstantMemory {
 public:
  ConstantMemory() = default;
  explicit ConstantMemory(size_t bytes) : own_(bytes), bytes_(own_.size()) {}
  /// 64-byte aligned.
  static ConstantMemory borrowed(const std::byte* data, size_t bytes) {
    ConstantMemory memory;
    memory.borrowed_ = data;
    memory.bytes_ = bytes;
    return memory;
  }
  const std::byte* data() const { return borrowed_ ? borrowed_ : own_.data(); }
  /// Throws InternalError for borrowed memory.
  std::byte* writable() const {
    check(!borrowed_, "session: a constant that is only mapped would be written");
    return own_.data();
  }
  bool is_borrowed() const { return borrowed_ != nullptr; }
  size_t size() const { return bytes_; }

 private:
  AlignedMemory own_;
  const std::byte* borrowed_ = nullptr;
  size_t bytes_ = 0;
};

/// A state in the form that some kernels read (Kernel::packing), one for all programs.
struct PackedState {
  std::string state;
  size_t bytes = 0;
  ConstantMemory memory;
  uint64_t version = 0;  ///< of the state, when it was made; 0: not yet
};

/// What programs read and no run of theirs changes: a state as it lies, or (with a form) as kernels packed it.
struct Constant {
  std::string state;
  std::string form;
  std::string value;  ///< of a state: its type and layout
  size_t bytes = 0;
  /// One line, the same for equal constants and no others.
  std::string str() const;
};

/// One compiled graph: a list of kernel calls with their pointers bound.
class Program {
 public:
  /// Copies `tensor` (row-major, of the input's type) in. Throws InternalError on a wrong name or type.
  void set_input(const std::string& name, const Tensor& tensor);
  /// Where a plain input or output lies, for callers that fill or read it in place.
  void* input_data(const std::string& name);
  /// Reads a plain input from `data`, 64-byte aligned, instead of from a copy, until told otherwise; null: from its own
  /// place again.
  void read_input_at(const std::string& name, const void* data);
  /// Of a stream's program: in Session::run_streams alone.
  void run();
  Tensor output(const std::string& name) const;
  /// A float output of one element.
  double scalar(const std::string& name) const;

  const Plan& plan() const { return plan_; }
  const Graph& graph() const { return *graph_; }
  size_t arena_bytes() const { return plan_.arena_bytes; }
  /// FLOPs of one run by the ops' own counts (direct convolution).
  double flops() const;

  /// Seconds spent in each step so far; filled only after profile(true).
  void profile(bool on) { profiling_ = on; }
  const std::vector<double>& step_seconds() const { return step_seconds_; }
  /// Runs that these are of.
  int64_t profiled_runs() const { return profiled_runs_; }

 private:
  friend class Session;
  Program() = default;
  void bind();
  /// The arena's first byte.
  std::byte* arena() const;
  /// What kernels prepared of states that have changed is prepared anew.
  void follow_states();
  /// Makes what kernels read in a form of their own, where the state has changed since; of one state, or (empty) of
  /// all.
  void pack_constants(const std::string& state = {});
  const Buffer& buffer(const std::map<std::string, int>& names, const std::string& name) const;
  const std::byte* address(int buffer) const;
  /// Of a buffer that a step writes.
  std::byte* writable(int buffer) const;

  struct Bound {
    Kernel* kernel;
    std::vector<const void*> in;
    std::vector<void*> out;
    void* scratch;
    const void* packed;
  };

  Session* session_ = nullptr;
  std::optional<int> stream_;
  bool in_streams_ = false;  ///< Session::run_streams is under way
  std::unique_ptr<Graph> graph_;
  Plan plan_;
  std::vector<Bound> steps_;
  std::vector<std::shared_ptr<PackedState>> packed_;  ///< by step; null where a kernel reads all as it lies
  std::map<int, const void*> fed_;                    ///< inputs that lie elsewhere, by buffer
  uint64_t seen_version_ = 0;                         ///< of the session's states, when constants were last prepared
  bool profiling_ = false;
  std::vector<double> step_seconds_;
  int64_t profiled_runs_ = 0;
};

class Session {
 public:
  explicit Session(std::shared_ptr<Backend> backend) : backend_(std::move(backend)) {}

  /// Plans the graph on this session's backend. States are shared by name with the programs compiled
  /// before; a new one starts zero. Growing the arena rebinds the older programs, whose inputs must be set again.
  /// Throws ResourceError (limit) when the program needs more memory than there is; the session is then as before, but
  /// for those inputs. With `stream`, a number from 0 on, for one thread, beside the programs of other streams; such a
  /// program assigns no states.
  Program& compile(std::unique_ptr<Graph> graph, const PlanProgress& progress = {}, std::optional<int> stream = {});
  /// Calls run(0) to run(programs.size() - 1) at once, each on a thread of its own, which may run its one of the
  /// `programs`, of as many streams. The first exception that one of them throws comes out when all are done.
  void run_streams(std::span<Program* const> programs, const std::function<void(int)>& run);
  /// Forgets a program and its kernels (its states stay).
  void release(const Program& program);

  /// Makes a state that no program reads yet (weights that others are folded from); zero at first.
  void add_state(const std::string& name, const TensorType& type);
  /// States by name, row-major. Throws InternalError on an unknown name or another type.
  Tensor read_state(const std::string& name) const;
  void write_state(const std::string& name, const Tensor& tensor);
  bool has_state(const std::string& name) const { return states_.contains(name); }
  /// Where every kernel of the programs so far reads `name` in a form of its own, makes these forms and frees the
  /// state. Until it is written again it cannot be read, nor can a program that reads it otherwise be compiled
  /// (InternalError). True when it was freed.
  bool keep_packed_only(const std::string& name);

  /// All that the programs so far read; `leave_packed`: but for states that keep_packed_only() would free. The same
  /// programs have the same, in the same order.
  std::vector<Constant> constants(bool leave_packed) const;
  /// The bytes of one of them, packed now if they have not been.
  std::span<const std::byte> constant_bytes(const Constant& constant);
  /// Takes `constants`, which are constants(leave_packed) of the programs so far, from where they lie in memory: `data`
  /// is 64-byte aligned, and `owner` keeps it. The states that are left out are freed. Throws InternalError when a
  /// program assigns states.
  void adopt_constants(const std::vector<Constant>& constants, const std::vector<const std::byte*>& data,
                       std::shared_ptr<const void> owner);
  /// Counts every change of any state.
  uint64_t version() const { return version_; }
  /// How often a kernel has packed a state so far.
  int64_t packed_states() const { return packed_states_; }
  const TensorType& state_type(const std::string& name) const;

  Backend& backend() { return *backend_; }
  /// For another session on the same backend.
  std::shared_ptr<Backend> shared_backend() { return backend_; }
  /// Of all arenas.
  size_t arena_bytes() const;
  size_t state_bytes() const;
  /// States in the forms that kernels read.
  size_t held_bytes() const;
  /// Those of state_bytes() and held_bytes() that were adopted.
  size_t adopted_bytes() const;

 private:
  friend class Program;
  struct State {
    ValueInfo value;
    ConstantMemory memory;  ///< none while only packed forms are kept
    uint64_t version = 1;   ///< the session's, when it last changed
    bool used = false;      ///< written by anybody: before that the memory is only promised
  };
  /// Where the activations of programs lie.
  struct Arena {
    AlignedMemory memory;
    bool used = false;  ///< by a run: before that the memory is only promised
  };

  const State& state(const std::string& name) const;
  /// Whether all programs that read it do so in a form of their own.
  bool read_packed_only(const std::string& name) const;
  void bind_all();
  /// Copies an adopted state, for a program that writes it.
  void own_state(const std::string& name);
  const std::byte* state_data(const std::string& name) const;
  /// The program's shares of packed states, made ready but not filled.
  std::vector<std::shared_ptr<PackedState>> reserve_packed(const Plan& plan);
  /// What an arena of so many bytes, the plan's kernels and its states that are not there yet take.
  double new_bytes(const Plan& plan, size_t arena) const;
  /// What the session has reserved and not used yet: the system still counts it as free.
  double untouched_bytes() const;
  /// A larger arena in place of the old one; without the memory for it, one of the old size, and throws.
  void grow_arena(Arena& arena, size_t bytes);

  std::shared_ptr<Backend> backend_;
  std::map<std::string, State> states_;
  std::map<std::pair<std::string, std::string>, std::weak_ptr<PackedState>> packed_;  ///< by state and form
  uint64_t version_ = 1;  ///< counts every change of any state
  int64_t packed_states_ = 0;
  std::vector<Arena> arenas_ = std::vector<Arena>(1);  ///< by stream; the first is the other programs', too
  std::vector<std::shared_ptr<const void>> owners_;    ///< of adopted constants
  std::vector<std::unique_ptr<Program>> programs_;
};

}  // namespace resnet

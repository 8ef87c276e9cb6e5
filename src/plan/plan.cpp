#include "plan/plan.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>

#include "base/align.h"
#include "base/memory.h"

namespace resnet {
namespace {

/// Sizes beyond any machine's are refused before a kernel is measured on them, and before they overflow.
void require_memory_for_each_node(const Graph& graph, size_t memory) {
  auto bytes_of = [](const TensorType& type) {
    auto bytes = static_cast<double>(size_of(type.dtype));
    for (int64_t dim : type.shape.dims()) bytes *= static_cast<double>(dim);
    return bytes;
  };
  for (int32_t id : graph.live_nodes()) {
    const Node& node = graph.node(id);
    double bytes = 0;
    for (const Value& input : node.inputs) bytes += bytes_of(input.type());
    for (const TensorType& output : node.outputs) bytes += bytes_of(output);
    require_memory(bytes, memory);
  }
}

class Planner {
 public:
  Planner(const Graph& graph, Backend& backend) : graph_(graph), backend_(backend) {}

  Plan run(const PlanProgress& progress) {
    order();
    choose_layouts();
    make_steps(progress);
    place();
    check_plan();
    return std::move(plan_);
  }

 private:
  struct Use {
    std::vector<const OpDef*> readers;
    std::vector<int32_t> reader_nodes;
    bool kept = false;  ///< read after the run
  };

  /// Dependency order, with every update of a state after all other readers of that state.
  void order() {
    const std::vector<int32_t> live = graph_.live_nodes();
    for (int32_t id : live) {
      for (const Value& input : graph_.node(id).inputs) {
        Use& use = uses_[input];
        use.readers.push_back(graph_.node(id).op);
        use.reader_nodes.push_back(id);
      }
    }
    for (const auto& [name, value] : graph_.outputs()) uses_[value].kept = true;
    std::map<int32_t, std::vector<int32_t>> must_precede;  // update node -> readers of the old state
    for (const auto& [state, value] : graph_.assignments()) {
      uses_[value].kept = true;
      for (int32_t reader : uses_[state].reader_nodes) {
        if (reader != value.node) must_precede[value.node].push_back(reader);
      }
    }
    // live is already a topological order; emit it, holding updates back until their readers are out, and
    // holding back what reads an update with it.
    std::map<int32_t, int> waiting;
    std::map<int32_t, std::vector<int32_t>> wakes;
    for (int32_t id : live) {
      if (graph_.node(id).kind != NodeKind::op) continue;
      std::vector<int32_t> before = must_precede[id];
      for (const Value& input : graph_.node(id).inputs) {
        if (graph_.node(input).kind == NodeKind::op) before.push_back(input.node);
      }
      std::sort(before.begin(), before.end());
      before.erase(std::unique(before.begin(), before.end()), before.end());
      waiting[id] = static_cast<int>(before.size());
      for (int32_t other : before) wakes[other].push_back(id);
    }
    std::set<int32_t> held;
    auto emit = [&](int32_t first) {
      for (std::vector<int32_t> ready{first}; !ready.empty();) {
        const int32_t id = ready.back();
        ready.pop_back();
        order_.push_back(id);
        const std::vector<int32_t>& woken = wakes[id];
        for (auto next = woken.rbegin(); next != woken.rend(); ++next) {
          if (--waiting[*next] == 0 && held.erase(*next) > 0) ready.push_back(*next);
        }
      }
    };
    for (int32_t id : live) {
      if (graph_.node(id).kind != NodeKind::op) continue;
      if (waiting[id] > 0) {
        held.insert(id);
      } else {
        emit(id);
      }
    }
    check(held.empty(), "plan: an updated state is read by something that needs the update");
  }

  /// Nodes on it.
  int64_t longest_way() const {
    std::map<int32_t, int64_t> length;
    int64_t longest = 0;
    for (int32_t id : order_) {
      int64_t before = 0;
      for (const Value& input : graph_.node(id).inputs) {
        if (const auto found = length.find(input.node); found != length.end()) before = std::max(before, found->second);
      }
      longest = std::max(longest, length[id] = before + 1);
    }
    return longest;
  }

  void choose_layouts() {
    auto add = [&](Value value, const Node& node) {
      const Use& use = uses_[value];
      const ValueRole role{node.kind, node.op, use.readers};
      Buffer buffer;
      const std::optional<Layout> inherited = inherited_layout(value, node);
      buffer.value = {value.type(), inherited ? *inherited : backend_.layout(value.type(), role)};
      buffer.bytes = align_up(storage_bytes(buffer.value.type, buffer.value.layout));
      buffer.first = -1;
      plan_.buffers.push_back(std::move(buffer));
      buffer_of_[value] = static_cast<int>(plan_.buffers.size() - 1);
    };
    for (int32_t id : graph_.live_nodes()) {
      const Node& node = graph_.node(id);
      if (node.kind == NodeKind::op) continue;
      const Value value{const_cast<Graph*>(&graph_), id, 0};
      add(value, node);
      if (node.kind == NodeKind::state) {
        plan_.buffers.back().state = node.name;
        plan_.states.push_back(buffer_of_[value]);
      } else {
        plan_.inputs[node.name] = buffer_of_[value];
      }
    }
    std::map<Value, Value> assigned;  // new value -> state
    for (const auto& [state, value] : graph_.assignments()) assigned[value] = state;
    for (int32_t id : order_) {
      const Node& node = graph_.node(id);
      for (size_t i = 0; i < node.outputs.size(); ++i) {
        const Value value{const_cast<Graph*>(&graph_), id, static_cast<int32_t>(i)};
        if (auto found = assigned.find(value); found != assigned.end()) {
          check(overwrites(node, static_cast<int>(i), found->second),
                "plan: a state must be assigned by an op that updates it in place");
          buffer_of_[value] = buffer_of_.at(found->second);
        } else {
          add(value, node);
        }
      }
    }
    for (const auto& [name, value] : graph_.outputs()) plan_.outputs[name] = buffer_of_.at(value);
  }

  /// The layout of an elementwise result is its input's.
  std::optional<Layout> inherited_layout(Value value, const Node& node) {
    if (node.kind != NodeKind::op) return std::nullopt;
    for (const InPlace& pair : node.op->in_place) {
      if (!pair.takes_layout || pair.output != value.output || static_cast<size_t>(pair.input) >= node.inputs.size())
        continue;
      const ValueInfo& input = buffer(buffer_of_.at(node.inputs[static_cast<size_t>(pair.input)])).value;
      if (input.type == value.type()) return input.layout;
    }
    return std::nullopt;
  }

  static bool overwrites(const Node& node, int output, Value input) {
    for (const InPlace& pair : node.op->in_place) {
      if (pair.output == output && pair.takes_layout && static_cast<size_t>(pair.input) < node.inputs.size() &&
          node.inputs[static_cast<size_t>(pair.input)] == input) {
        return true;
      }
    }
    return false;
  }

  void make_steps(const PlanProgress& progress) {
    const int last_step = static_cast<int>(order_.size()) - 1;
    const int64_t depth = longest_way();
    // An input lives throughout, so that it may be fed once and the program run often.
    for (auto& [name, index] : plan_.inputs) {
      touch(index, 0);
      touch(index, last_step);
    }
    for (size_t at = 0; at < order_.size(); ++at) {
      const Node& node = graph_.node(order_[at]);
      const int step_index = static_cast<int>(at);
      Step step;
      step.node = order_[at];
      std::vector<ValueInfo> in;
      std::vector<ValueInfo> out;
      std::vector<char> constant;
      std::vector<char> used;
      std::vector<TensorType> in_types;
      for (const Value& value : node.inputs) {
        step.in.push_back(buffer_of_.at(value));
        in.push_back(buffer(step.in.back()).value);
        in_types.push_back(value.type());
        constant.push_back(graph_.node(value).kind == NodeKind::state && !graph_.assignments().contains(value));
      }
      for (size_t i = 0; i < node.outputs.size(); ++i) {
        const Value value{const_cast<Graph*>(&graph_), order_[at], static_cast<int32_t>(i)};
        step.out.push_back(buffer_of_.at(value));
        out.push_back(buffer(step.out.back()).value);
        const Use& use = uses_[value];
        used.push_back(use.kept || !use.readers.empty());
      }
      for (int b : step.in) touch(b, step_index);
      for (int b : step.out) touch(b, step_index);
      const NodeRequest request{*node.op, node.attributes, in, out, constant, used, node.name, depth};
      if (const Support support = backend_.supports(request); !support.ok) {
        throw UserError("backend '{}' cannot run {} '{}': {}; try --backend reference", backend_.name(), node.op->name,
                        node.name, support.reason);
      }
      step.kernel = backend_.prepare(request);
      step.cost = node.op->cost(node.attributes, in_types, node.outputs);
      if (const size_t bytes = step.kernel->scratch_bytes(); bytes > 0) {
        Buffer scratch;
        scratch.value = {{DType::u8, Shape{static_cast<int64_t>(bytes)}}, {}};
        scratch.bytes = align_up(bytes);
        scratch.first = scratch.last = step_index;
        plan_.buffers.push_back(scratch);
        step.scratch = static_cast<int>(plan_.buffers.size() - 1);
      }
      plan_.steps.push_back(std::move(step));
      if (progress) progress("choosing kernels", step_index + 1, last_step + 1);
    }
    // An output is read after the run, so the last step must not write over it either.
    for (auto& [name, index] : plan_.outputs) touch(index, last_step + 1);
  }

  Buffer& buffer(int index) { return plan_.buffers[static_cast<size_t>(index)]; }

  void touch(int index, int step) {
    Buffer& b = buffer(index);
    if (b.first < 0) b.first = step;
    b.last = std::max(b.last, step);
  }

  /// An elementwise result may take over the bytes of an input that dies at that step: such buffers
  /// are merged into one before placement.
  std::vector<int> merge_in_place() {
    std::vector<int> root(plan_.buffers.size());
    for (size_t i = 0; i < root.size(); ++i) root[i] = static_cast<int>(i);
    auto find = [&](int i) {
      while (root[static_cast<size_t>(i)] != i) i = root[static_cast<size_t>(i)];
      return i;
    };
    std::vector<char> pinned(plan_.buffers.size(), 0);
    for (const auto& [name, index] : plan_.inputs)
      pinned[static_cast<size_t>(index)] = 1;  // may be fed once, read often
    for (size_t at = 0; at < plan_.steps.size(); ++at) {
      const Step& step = plan_.steps[at];
      const Node& node = graph_.node(step.node);
      std::vector<char> taken(step.in.size(), 0);
      for (const InPlace& pair : node.op->in_place) {
        if (static_cast<size_t>(pair.input) >= step.in.size() || static_cast<size_t>(pair.output) >= step.out.size())
          continue;
        const int out = step.out[static_cast<size_t>(pair.output)];
        const int in = find(step.in[static_cast<size_t>(pair.input)]);
        if (taken[static_cast<size_t>(pair.input)] || root[static_cast<size_t>(out)] != out || out == in) continue;
        if (!buffer(out).state.empty() || !buffer(in).state.empty() || pinned[static_cast<size_t>(in)]) continue;
        const int in_last = buffer(in).last;
        const bool same_storage =
            buffer(in).bytes == buffer(out).bytes &&
            buffer(step.in[static_cast<size_t>(pair.input)]).value.layout == buffer(out).value.layout;
        const bool read_twice = std::count_if(step.in.begin(), step.in.end(), [&](int b) { return find(b) == in; }) > 1;
        if (in_last != static_cast<int>(at) || !same_storage || read_twice) continue;
        root[static_cast<size_t>(out)] = in;
        buffer(in).last = std::max(buffer(in).last, buffer(out).last);
        taken[static_cast<size_t>(pair.input)] = 1;
      }
    }
    for (size_t i = 0; i < root.size(); ++i) root[i] = find(static_cast<int>(i));
    return root;
  }

  /// The buffers with bytes of their own in the arena.
  std::vector<int> arena_buffers() const {
    std::vector<int> indices;
    for (size_t i = 0; i < plan_.buffers.size(); ++i) {
      const Buffer& b = plan_.buffers[i];
      if (b.state.empty() && root_[i] == static_cast<int>(i) && b.bytes > 0) indices.push_back(static_cast<int>(i));
    }
    return indices;
  }

  /// Greedy by size: the largest buffers first, each at the lowest offset free during its life.
  void place() {
    root_ = merge_in_place();
    std::vector<int> by_size = arena_buffers();
    std::stable_sort(by_size.begin(), by_size.end(), [&](int a, int b) { return buffer(a).bytes > buffer(b).bytes; });
    // Each search may walk over everything placed, tens of thousands in the deepest nets: it lies packed, in order.
    struct Placed {
      size_t offset, end;
      int first, last;
    };
    std::vector<Placed> placed;
    for (int index : by_size) {
      Buffer& b = buffer(index);
      size_t offset = 0;
      for (const Placed& other : placed) {
        if (other.last < b.first || other.first > b.last) continue;
        if (other.offset >= offset + b.bytes) break;
        offset = std::max(offset, other.end);
      }
      b.offset = offset;
      plan_.arena_bytes = std::max(plan_.arena_bytes, offset + b.bytes);
      const auto after = std::upper_bound(placed.begin(), placed.end(), offset,
                                          [](size_t value, const Placed& other) { return value < other.offset; });
      placed.insert(after, Placed{offset, offset + b.bytes, b.first, b.last});
    }
    for (size_t i = 0; i < root_.size(); ++i) plan_.buffers[i].offset = buffer(root_[i]).offset;
  }

  /// Walks through the steps with the buffers alive in order of offset, where only neighbours can overlap.
  void check_plan() {
    std::vector<int> by_first = arena_buffers();
    std::vector<int> by_last = by_first;
    std::sort(by_first.begin(), by_first.end(), [&](int a, int b) { return buffer(a).first < buffer(b).first; });
    std::sort(by_last.begin(), by_last.end(), [&](int a, int b) { return buffer(a).last < buffer(b).last; });
    std::map<size_t, size_t> alive;  // offset -> end
    auto ended = by_last.begin();
    for (int index : by_first) {
      const Buffer& b = buffer(index);
      for (; buffer(*ended).last < b.first; ++ended) alive.erase(buffer(*ended).offset);
      const auto [at, alone] = alive.emplace(b.offset, b.offset + b.bytes);
      const auto after = std::next(at);
      const bool apart = alone && (at == alive.begin() || std::prev(at)->second <= b.offset) &&
                         (after == alive.end() || b.offset + b.bytes <= after->first);
      check(apart, "plan: two live buffers share bytes");
    }
  }

  const Graph& graph_;
  Backend& backend_;
  Plan plan_;
  std::vector<int32_t> order_;
  std::map<Value, Use> uses_;
  std::map<Value, int> buffer_of_;
  std::vector<int> root_;
};

}  // namespace

Plan make_plan(const Graph& graph, Backend& backend, const PlanProgress& progress, size_t memory) {
  verify(graph);
  require_memory_for_each_node(graph, memory);
  return Planner(graph, backend).run(progress);
}

size_t bytes_moved(const Plan& plan, const Step& step) {
  const auto bytes_of = [&](int index) {
    const ValueInfo& value = plan.buffers[static_cast<size_t>(index)].value;
    return storage_bytes(value.type, value.layout);
  };
  const auto packing = step.kernel->packing();
  size_t bytes = 0;
  for (size_t i = 0; i < step.in.size(); ++i) {
    bytes += packing && packing->input == i ? packing->bytes : bytes_of(step.in[i]);
  }
  for (const int b : step.out) bytes += bytes_of(b);
  return bytes;
}

std::string print(const Graph& graph, const Plan& plan) {
  std::string text = fmt::format("{:>4}  {:<26} {:<28} {:<26} {:>12} {:>14} {:>10}\n", "step", "op", "name",
                                 "algorithm", "MFLOP", "offset", "KiB");
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const Node& node = graph.node(step.node);
    const Buffer* out = step.out.empty() ? nullptr : &plan.buffers[static_cast<size_t>(step.out[0])];
    const std::string where = !out ? "" : out->state.empty() ? fmt::format("{}", out->offset) : "@" + out->state;
    text += fmt::format("{:>4}  {:<26} {:<28} {:<26} {:>12.2f} {:>14} {:>10}  {}\n", i, node.op->name, node.name,
                        step.kernel->algorithm(), step.cost.flops / 1e6, where, out ? out->bytes / 1024 : 0,
                        out ? out->value.layout.str() : "");
  }
  text += fmt::format("arena: {} bytes ({:.1f} MiB), {} steps\n", plan.arena_bytes,
                      static_cast<double>(plan.arena_bytes) / (1 << 20), plan.steps.size());
  return text;
}

}  // namespace resnet

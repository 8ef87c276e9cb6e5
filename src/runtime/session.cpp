#include "runtime/session.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <set>
#include <utility>

#include "base/align.h"
#include "base/memory.h"

namespace resnet {

const Buffer& Program::buffer(const std::map<std::string, int>& names, const std::string& name) const {
  const auto found = names.find(name);
  if (found == names.end()) throw InternalError(fmt::format("program has no input or output '{}'", name));
  return plan_.buffers[static_cast<size_t>(found->second)];
}

std::byte* Program::arena() const { return session_->arenas_[static_cast<size_t>(stream_.value_or(0))].memory.data(); }

const std::byte* Program::address(int index) const {
  const Buffer& b = plan_.buffers[static_cast<size_t>(index)];
  return b.state.empty() ? arena() + b.offset : session_->states_.at(b.state).memory.data();
}

std::byte* Program::writable(int index) const {
  const Buffer& b = plan_.buffers[static_cast<size_t>(index)];
  return b.state.empty() ? arena() + b.offset : session_->states_.at(b.state).memory.writable();
}

void Program::bind() {
  steps_.clear();
  for (size_t i = 0; i < plan_.steps.size(); ++i) {
    const Step& step = plan_.steps[i];
    Bound bound{step.kernel.get(), {}, {}, step.scratch < 0 ? nullptr : writable(step.scratch), nullptr};
    for (int b : step.in) {
      const auto fed = fed_.find(b);
      bound.in.push_back(fed == fed_.end() ? address(b) : fed->second);
    }
    for (int b : step.out) bound.out.push_back(writable(b));
    if (packed_[i]) {
      bound.packed = packed_[i]->memory.data();
      bound.in[step.kernel->packing()->input] = nullptr;
    }
    steps_.push_back(std::move(bound));
  }
  step_seconds_.resize(steps_.size());
}

void Program::read_input_at(const std::string& name, const void* data) {
  check(buffer(plan_.inputs, name).value.layout.kind == Layout::Kind::plain,
        "read_input_at: the input is not row-major");
  check(reinterpret_cast<uintptr_t>(data) % kAlignment == 0, "read_input_at: the data is not aligned");
  const int index = plan_.inputs.at(name);
  if (data) {
    fed_[index] = data;
  } else {
    fed_.erase(index);
    data = address(index);
  }
  for (size_t i = 0; i < steps_.size(); ++i) {
    const std::vector<int>& in = plan_.steps[i].in;
    for (size_t j = 0; j < in.size(); ++j) {
      if (in[j] == index) steps_[i].in[j] = data;
    }
  }
}

void Program::pack_constants(const std::string& state) {
  bool moved = false;
  for (size_t i = 0; i < steps_.size(); ++i) {
    PackedState* packed = packed_[i].get();
    if (!packed || (!state.empty() && packed->state != state)) continue;
    const uint64_t version = session_->state(packed->state).version;
    if (packed->version == version) continue;
    if (packed->memory.is_borrowed()) {
      packed->memory = ConstantMemory(packed->bytes);
      moved = true;
    }
    steps_[i].kernel->pack(session_->state_data(packed->state), packed->memory.writable());
    packed->version = version;
    ++session_->packed_states_;
  }
  if (moved) session_->bind_all();
}

void Program::set_input(const std::string& name, const Tensor& tensor) {
  const Buffer& b = buffer(plan_.inputs, name);
  if (tensor.type() != b.value.type) {
    throw InternalError(fmt::format("input '{}' is {}, was given {}", name, b.value.type.str(), tensor.type().str()));
  }
  to_layout(tensor, b.value.layout, writable(plan_.inputs.at(name)));
}

void* Program::input_data(const std::string& name) {
  check(buffer(plan_.inputs, name).value.layout.kind == Layout::Kind::plain, "input_data: the input is not row-major");
  return writable(plan_.inputs.at(name));
}

void Program::follow_states() {
  if (seen_version_ == session_->version_) return;
  for (const Bound& step : steps_) step.kernel->constants_changed();
  pack_constants();
  seen_version_ = session_->version_;
}

void Program::run() {
  if (stream_) {
    check(in_streams_, "Program::run: a stream's program outside of Session::run_streams");
  } else {
    session_->backend_->before_run();
    session_->arenas_[0].used = true;
    follow_states();
  }
  if (!graph_->assignments().empty()) {
    ++session_->version_;
    for (const auto& [name, value] : graph_->assignments()) {
      Session::State& state = session_->states_.at(graph_->node(name).name);
      state.version = session_->version_;
      state.used = true;
    }
  }
  if (!profiling_) {
    for (const Bound& step : steps_) step.kernel->run({step.in, step.out, step.scratch, step.packed});
    return;
  }
  ++profiled_runs_;
  for (size_t i = 0; i < steps_.size(); ++i) {
    const auto start = std::chrono::steady_clock::now();
    steps_[i].kernel->run({steps_[i].in, steps_[i].out, steps_[i].scratch, steps_[i].packed});
    step_seconds_[i] += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
}

Tensor Program::output(const std::string& name) const {
  const Buffer& b = buffer(plan_.outputs, name);
  Tensor tensor(b.value.type);
  from_layout(address(plan_.outputs.at(name)), b.value.layout, tensor);
  return tensor;
}

double Program::scalar(const std::string& name) const {
  const Tensor tensor = output(name);
  check(tensor.elements() == 1, "Program::scalar: more than one element");
  return with_float(tensor.dtype(), [&](auto tag) { return static_cast<double>(tensor.as<decltype(tag)>()[0]); });
}

double Program::flops() const {
  double total = 0;
  for (const Step& step : plan_.steps) total += step.cost.flops;
  return total;
}

namespace {

/// What is prepared in its scope is a stream's, if it is to be; what is prepared after it is not.
class ForStream {
 public:
  ForStream(Backend& backend, bool on) : backend_(backend) { backend_.for_stream(on); }
  ~ForStream() { backend_.for_stream(false); }
  ForStream(const ForStream&) = delete;
  ForStream& operator=(const ForStream&) = delete;

 private:
  Backend& backend_;
};

/// Where its streams run, programs of streams may run.
class Marked {
 public:
  explicit Marked(std::span<bool* const> marks) : marks_(marks) { set(true); }
  ~Marked() { set(false); }
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;

 private:
  void set(bool on) {
    for (bool* mark : marks_) *mark = on;
  }
  std::span<bool* const> marks_;
};

}  // namespace

Program& Session::compile(std::unique_ptr<Graph> graph, const PlanProgress& progress, std::optional<int> stream) {
  auto program = std::unique_ptr<Program>(new Program);
  program->session_ = this;
  program->stream_ = stream;
  program->graph_ = std::move(graph);
  check(!stream || (*stream >= 0 && *stream < backend_->streams() && program->graph_->assignments().empty()),
        "Session::compile: the backend has no such stream, or it would assign states");
  const auto place = static_cast<size_t>(stream.value_or(0));
  if (place >= arenas_.size()) arenas_.resize(place + 1);
  Arena& arena = arenas_[place];
  // The arena is given back before a larger one is asked for, so it counts as available; what earlier programs have
  // been promised and have not touched yet does not.
  const double all = static_cast<double>(available_memory()) + static_cast<double>(arena.memory.size());
  const double rest = std::max(0.0, all - untouched_bytes());
  const size_t available = rest < static_cast<double>(SIZE_MAX) ? static_cast<size_t>(rest) : SIZE_MAX;
  {
    const ForStream preparing(*backend_, stream.has_value());
    program->plan_ = make_plan(*program->graph_, *backend_, progress, available);
  }
  const Plan& plan = program->plan_;
  require_memory(new_bytes(plan, std::max(plan.arena_bytes, arena.memory.size())), available);
  std::vector<std::string> added;
  try {
    for (int index : plan.states) {
      const Buffer& b = plan.buffers[static_cast<size_t>(index)];
      const auto found = states_.find(b.state);
      if (found == states_.end()) {
        states_.emplace(b.state, State{b.value, ConstantMemory(storage_bytes(b.value.type, b.value.layout)), version_});
        added.push_back(b.state);
      } else {
        check(found->second.value.type == b.value.type && found->second.value.layout == b.value.layout,
              "Session::compile: a state has another type or layout in an earlier program");
      }
    }
    for (const auto& [assigned, value] : program->graph_->assignments())
      own_state(program->graph_->node(assigned).name);
    program->packed_ = reserve_packed(plan);
    if (plan.arena_bytes > arena.memory.size()) grow_arena(arena, plan.arena_bytes);
    program->bind();
    programs_.push_back(std::move(program));
  } catch (...) {
    for (const std::string& name : added) states_.erase(name);
    throw;
  }
  return *programs_.back();
}

void Session::run_streams(std::span<Program* const> programs, const std::function<void(int)>& run) {
  std::set<int> streams;
  std::vector<bool*> marks;
  for (Program* program : programs) {
    check(program->session_ == this && program->stream_, "Session::run_streams: a program that is no stream's");
    check(streams.insert(*program->stream_).second, "Session::run_streams: two programs of one stream");
    arenas_[static_cast<size_t>(*program->stream_)].used = true;
    program->follow_states();
    marks.push_back(&program->in_streams_);
  }
  check(!streams.empty(), "Session::run_streams: no programs");
  const Marked running(marks);
  backend_->run_streams(static_cast<int>(programs.size()), run);
}

double Session::untouched_bytes() const {
  double bytes = 0;
  for (const Arena& arena : arenas_) bytes += arena.used ? 0 : static_cast<double>(arena.memory.size());
  for (const auto& [name, s] : states_)
    bytes += s.used || s.memory.is_borrowed() ? 0 : static_cast<double>(s.memory.size());
  for (const auto& [key, packed] : packed_) {
    if (const auto shared = packed.lock(); shared && shared->version == 0) bytes += static_cast<double>(shared->bytes);
  }
  return bytes;
}

double Session::new_bytes(const Plan& plan, size_t arena) const {
  double bytes = static_cast<double>(arena);
  for (int index : plan.states) {
    const Buffer& b = plan.buffers[static_cast<size_t>(index)];
    if (!states_.contains(b.state)) bytes += static_cast<double>(b.bytes);
  }
  for (const Step& step : plan.steps) {
    bytes += static_cast<double>(step.kernel->held_bytes());
    const auto packing = step.kernel->packing();
    if (!packing) continue;
    const std::string& state = plan.buffers[static_cast<size_t>(step.in[packing->input])].state;
    const auto found = packed_.find({state, packing->form});
    if (found == packed_.end() || found->second.expired()) bytes += static_cast<double>(packing->bytes);
  }
  return bytes;
}

std::vector<std::shared_ptr<PackedState>> Session::reserve_packed(const Plan& plan) {
  std::erase_if(packed_, [](const auto& each) { return each.second.expired(); });
  std::vector<std::shared_ptr<PackedState>> shares(plan.steps.size());
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const Step& step = plan.steps[i];
    const auto packing = step.kernel->packing();
    for (size_t j = 0; j < step.in.size(); ++j) {
      const std::string& name = plan.buffers[static_cast<size_t>(step.in[j])].state;
      if (!name.empty() && !(packing && packing->input == j)) state_data(name);  // throws if it is not there
    }
    if (!packing) continue;
    const std::string& name = plan.buffers[static_cast<size_t>(step.in[packing->input])].state;
    check(!name.empty(), "Session::compile: a kernel packs what is not a state");
    std::weak_ptr<PackedState>& known = packed_[{name, packing->form}];
    shares[i] = known.lock();
    if (!shares[i]) {
      state_data(name);
      shares[i] = std::make_shared<PackedState>(PackedState{name, packing->bytes, ConstantMemory(packing->bytes)});
      known = shares[i];
    }
    check(shares[i]->bytes == packing->bytes, "Session::compile: one form of a state in two sizes");
  }
  return shares;
}

bool Session::read_packed_only(const std::string& name) const {
  bool read = false;
  for (const auto& program : programs_) {
    for (const Step& step : program->plan_.steps) {
      const auto packing = step.kernel->packing();
      for (size_t j = 0; j < step.in.size(); ++j) {
        if (program->plan_.buffers[static_cast<size_t>(step.in[j])].state != name) continue;
        if (!packing || packing->input != j) return false;
        read = true;
      }
    }
  }
  return read;
}

bool Session::keep_packed_only(const std::string& name) {
  if (!state(name).memory.data()) return true;
  if (!read_packed_only(name)) return false;
  for (const auto& program : programs_) program->pack_constants(name);
  states_.at(name).memory = ConstantMemory();
  bind_all();
  return true;
}

std::string Constant::str() const {
  return form.empty() ? fmt::format("state {} {} {}", state, value, bytes)
                      : fmt::format("packed {}: {} {}", state, form, bytes);
}

std::vector<Constant> Session::constants(bool leave_packed) const {
  std::set<std::string> names;
  for (const auto& program : programs_) {
    for (const int index : program->plan_.states)
      names.insert(program->plan_.buffers[static_cast<size_t>(index)].state);
  }
  std::vector<Constant> list;
  for (const std::string& name : names) {
    if (leave_packed && read_packed_only(name)) continue;
    const ValueInfo& value = state(name).value;
    list.push_back({.state = name,
                    .form = "",
                    .value = fmt::format("{} {}", value.type.str(), value.layout.str()),
                    .bytes = storage_bytes(value.type, value.layout)});
  }
  for (const auto& [key, packed] : packed_) {
    if (const auto shared = packed.lock())
      list.push_back({.state = key.first, .form = key.second, .value = "", .bytes = shared->bytes});
  }
  return list;
}

std::span<const std::byte> Session::constant_bytes(const Constant& constant) {
  if (constant.form.empty()) return {state_data(constant.state), constant.bytes};
  for (const auto& program : programs_) program->pack_constants(constant.state);
  return {packed_.at({constant.state, constant.form}).lock()->memory.data(), constant.bytes};
}

void Session::adopt_constants(const std::vector<Constant>& constants, const std::vector<const std::byte*>& data,
                              std::shared_ptr<const void> owner) {
  check(constants.size() == data.size(), "Session::adopt_constants: as many constants as places");
  for (const auto& program : programs_)
    check(program->graph_->assignments().empty(), "Session::adopt_constants: a program assigns states");
  ++version_;
  for (const auto& program : programs_) {
    for (const int index : program->plan_.states) {
      State& s = states_.at(program->plan_.buffers[static_cast<size_t>(index)].state);
      s.memory = ConstantMemory();
      s.version = version_;
    }
  }
  for (size_t i = 0; i < constants.size(); ++i) {
    const Constant& constant = constants[i];
    ConstantMemory memory = ConstantMemory::borrowed(data[i], constant.bytes);
    if (constant.form.empty()) {
      states_.at(constant.state).memory = std::move(memory);
      continue;
    }
    const auto packed = packed_.at({constant.state, constant.form}).lock();
    check(packed && packed->bytes == constant.bytes, "Session::adopt_constants: no program reads this form");
    packed->memory = std::move(memory);
    packed->version = version_;
  }
  owners_.push_back(std::move(owner));
  bind_all();
}

void Session::own_state(const std::string& name) {
  State& s = states_.at(name);
  if (!s.memory.is_borrowed()) return;
  ConstantMemory copy(storage_bytes(s.value.type, s.value.layout));
  std::memcpy(copy.writable(), s.memory.data(), s.memory.size());
  s.memory = std::move(copy);
  s.used = true;
  bind_all();
}

void Session::bind_all() {
  for (const auto& program : programs_) program->bind();
}

void Session::grow_arena(Arena& arena, size_t bytes) {
  auto replace = [&](size_t size) {
    arena = Arena();  // give back before asking for more
    arena.memory = AlignedMemory(size);
    bind_all();
  };
  const size_t before = arena.memory.size();
  try {
    replace(bytes);
  } catch (...) {
    replace(before);  // what was just given back: the older programs go on
    throw;
  }
}

void Session::add_state(const std::string& name, const TensorType& type) {
  if (states_.contains(name)) return;
  const ValueInfo value{type, backend_->layout(type, {NodeKind::state, nullptr, {}})};
  states_.emplace(name, State{value, ConstantMemory(storage_bytes(value.type, value.layout)), version_});
}

void Session::release(const Program& program) {
  std::erase_if(programs_, [&](const auto& each) { return each.get() == &program; });
}

const Session::State& Session::state(const std::string& name) const {
  const auto found = states_.find(name);
  if (found == states_.end()) throw InternalError(fmt::format("session has no state '{}'", name));
  return found->second;
}

const std::byte* Session::state_data(const std::string& name) const {
  const State& s = state(name);
  if (!s.memory.data())
    throw InternalError(fmt::format("session: state '{}' was freed after its kernels had packed it", name));
  return s.memory.data();
}

const TensorType& Session::state_type(const std::string& name) const { return state(name).value.type; }

Tensor Session::read_state(const std::string& name) const {
  const State& s = state(name);
  Tensor tensor(s.value.type);
  from_layout(state_data(name), s.value.layout, tensor);
  return tensor;
}

void Session::write_state(const std::string& name, const Tensor& tensor) {
  state(name);
  State& s = states_.at(name);
  if (tensor.type() != s.value.type) {
    throw InternalError(fmt::format("state '{}' is {}, was given {}", name, s.value.type.str(), tensor.type().str()));
  }
  if (!s.memory.data() || s.memory.is_borrowed()) {
    s.memory = ConstantMemory(storage_bytes(s.value.type, s.value.layout));
    bind_all();
  }
  to_layout(tensor, s.value.layout, s.memory.writable());
  s.version = ++version_;
  s.used = true;
}

size_t Session::arena_bytes() const {
  size_t total = 0;
  for (const Arena& arena : arenas_) total += arena.memory.size();
  return total;
}

size_t Session::state_bytes() const {
  size_t total = 0;
  for (const auto& [name, s] : states_) total += s.memory.size();
  return total;
}

size_t Session::held_bytes() const {
  size_t total = 0;
  for (const auto& program : programs_) {
    for (const Step& step : program->plan_.steps) total += step.kernel->held_bytes();
  }
  for (const auto& [key, packed] : packed_) {
    if (const auto shared = packed.lock()) total += shared->memory.size();
  }
  return total;
}

size_t Session::adopted_bytes() const {
  size_t total = 0;
  for (const auto& [name, s] : states_) total += s.memory.is_borrowed() ? s.memory.size() : 0;
  for (const auto& [key, packed] : packed_) {
    if (const auto shared = packed.lock(); shared && shared->memory.is_borrowed()) total += shared->memory.size();
  }
  return total;
}

}  // namespace resnet

#include "backends/cpu/crowding.h"

#include <fcntl.h>
#include <omp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <string_view>
#include <system_error>
#include <utility>

namespace resnet::cpu {
namespace {

constexpr std::chrono::milliseconds kInterval(100);
/// Shares of the time that the thread waited for a CPU. Alone it is 2 %; beside another such process half of it, and a
/// fifth once nobody spins.
constexpr double kCrowded = 0.10, kCalm = 0.05;
/// A machine that would need more sleeping threads than this has CPUs to spare.
constexpr int kMostSleepers = 8;

/// The second number of the file, in nanoseconds; -1 where there is none. Takes no memory.
int64_t waited_ns(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  char text[128];
  const ssize_t size = ::read(file, text, sizeof text);
  ::close(file);
  const std::string_view line(text, static_cast<size_t>(std::max<ssize_t>(size, 0)));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos) return -1;
  int64_t value = -1;
  const auto parsed = std::from_chars(line.data() + space + 1, line.data() + line.size(), value);
  return parsed.ec == std::errc() ? value : -1;
}

void* until_unlocked(void* gate) {
  std::scoped_lock wait(*static_cast<std::mutex*>(gate));
  return nullptr;
}

/// Whether the system gives `count` more threads now: the OpenMP runtime ends the process when it gets none.
bool can_have_threads(int count) {
  std::mutex gate;
  std::array<pthread_t, kMostSleepers> threads;
  int made = 0;
  {
    std::scoped_lock hold(gate);
    while (made < count && pthread_create(&threads[static_cast<size_t>(made)], nullptr, until_unlocked, &gate) == 0)
      ++made;
  }
  for (int i = 0; i < made; ++i) pthread_join(threads[static_cast<size_t>(i)], nullptr);
  return made == count;
}

}  // namespace

void CrowdWatch::SleepingTeam::start(int size) {
  if (!can_have_threads(size)) return;
  size_ = size;
  process_ = ::getpid();
  state_ = State::starting;
  if (pthread_create(&thread_, nullptr, sleep, this) != 0) {
    state_ = State::absent;
    return;
  }
  std::unique_lock lock(gate_->mutex);
  gate_->changed.wait(lock, [this] { return state_ == State::asleep; });
}

void CrowdWatch::SleepingTeam::end() {
  if (state_ == State::absent) return;
  if (process_ != ::getpid()) {
    state_ = State::absent;
    // The gate has a waiter for ever, so it cannot be destroyed.
    static_cast<void>(gate_.release());
    gate_ = std::make_unique<Gate>();
    return;
  }
  {
    std::scoped_lock lock(gate_->mutex);
    state_ = State::absent;
  }
  gate_->changed.notify_all();
  pthread_join(thread_, nullptr);  // a thread's end gives its team back
}

void* CrowdWatch::SleepingTeam::sleep(void* self) {
  SleepingTeam& team = *static_cast<SleepingTeam*>(self);
  std::atomic<int> members = 0;
#pragma omp parallel num_threads(team.size_)
  {
    // The runtime counts a team's threads from its first region on, and keeps them for the next one. (A region that
    // does nothing would be left out by the compiler.)
    ++members;
  }
  std::unique_lock lock(team.gate_->mutex);
  team.state_ = State::asleep;
  team.gate_->changed.notify_all();
  team.gate_->changed.wait(lock, [&] { return team.state_ == State::absent; });
  return nullptr;
}

CrowdWatch::CrowdWatch(int threads, std::string schedstat) : threads_(threads), schedstat_(std::move(schedstat)) {}

void CrowdWatch::look(Clock::time_point now) {
  if (threads_ < 2) return;  // nobody waits for anybody
  if (last_waited_ns_ >= 0 && now - last_look_ < kInterval) return;
  const int64_t waited = waited_ns(schedstat_);
  if (waited < 0) return;
  const int thread = ::gettid();
  const auto before = std::exchange(last_look_, now);
  const int64_t waited_before = std::exchange(last_waited_ns_, waited);
  if (std::exchange(thread_, thread) != thread || waited_before < 0) return;
  const double share =
      static_cast<double>(waited - waited_before) / std::chrono::duration<double, std::nano>(now - before).count();
  if (crowded()) {
    if (share < kCalm) team_.end();
    return;
  }
  // With the computing team they are one more than the CPUs.
  const int size = std::max(2, omp_get_num_procs() - threads_ + 2);
  if (share >= kCrowded && size <= kMostSleepers) team_.start(size);
}

}  // namespace resnet::cpu

#pragma once
// Waiting well where other programs use the CPUs too.

#include <pthread.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace resnet::cpu {

/// A thread of a team that is done first waits for the others. GCC's OpenMP lets it spin for some milliseconds, which
/// is the fastest while every thread has a CPU of its own, and the slowest where another program wants the CPUs: it
/// spins on the very CPU that the thread it waits for should have. (ResNet-18, batch 1, two processes of two threads on
/// two CPUs: together 15 to 37 % of what one alone computes.) The runtime spins a hundred times only when the process
/// has more OpenMP threads than CPUs, which costs a sixth of the speed when alone. So this watches how long the
/// computing thread was ready to run and waited for a CPU, as the kernel's scheduler counts it, and while that is much,
/// holds an OpenMP team that sleeps: the runtime then counts more threads than CPUs. Source: the manual of libgomp,
/// GOMP_SPINCOUNT. Another OpenMP runtime (clang's) yields by itself; the team does no harm.
class CrowdWatch {
 public:
  using Clock = std::chrono::steady_clock;

  /// `schedstat`: the scheduler's counts of the calling thread, "CPU_NS WAITED_NS SLICES". Without such a file, and
  /// with one thread, it never sees a crowd.
  explicit CrowdWatch(int threads, std::string schedstat = "/proc/thread-self/schedstat");
  CrowdWatch(const CrowdWatch&) = delete;
  CrowdWatch& operator=(const CrowdWatch&) = delete;

  /// By the thread that computes, before each run. Reads the file ten times a second at most. Takes no memory from the
  /// heap, and never throws: where no further threads can be had, waiting stays as it is.
  void look(Clock::time_point now = Clock::now());
  bool crowded() const { return team_.asleep(); }

 private:
  /// An OpenMP team that has nothing to do. POSIX threads, as std::thread would allocate.
  class SleepingTeam {
   public:
    SleepingTeam() = default;
    ~SleepingTeam() { end(); }
    SleepingTeam(const SleepingTeam&) = delete;
    SleepingTeam& operator=(const SleepingTeam&) = delete;
    /// Of `size` threads; nothing happens where the system does not give them.
    void start(int size);
    void end();
    bool asleep() const { return state_ == State::asleep; }

   private:
    enum class State { absent, starting, asleep };
    static void* sleep(void* self);

    struct Gate {
      std::mutex mutex;
      std::condition_variable changed;
    };

    pthread_t thread_{};
    pid_t process_ = 0;  ///< whose thread it is: a child of fork() has none
    int size_ = 0;
    State state_ = State::absent;  ///< under the gate's mutex while the thread lives
    std::unique_ptr<Gate> gate_ = std::make_unique<Gate>();
  };

  int threads_;
  std::string schedstat_;
  SleepingTeam team_;
  Clock::time_point last_look_;
  int64_t last_waited_ns_ = -1;
  int thread_ = 0;  ///< whose counts the last ones are
};

}  // namespace resnet::cpu

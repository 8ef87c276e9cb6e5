#pragma once
// Which control groups limit this process: containers and services get their shares of a machine through them. Linux
// has two versions, and both at once where a controller of the first is mounted beside the second (cgroups(7)).

#include <string>
#include <string_view>
#include <vector>

namespace resnet {

/// A control group's folder; `version` names the files in it: 2 has cpu.max, 1 has cpu.cfs_quota_us.
struct ControlGroup {
  std::string folder;
  int version = 2;

  /// What one of its files holds; empty where there is no such file.
  std::string text(const std::string& name) const;
  bool operator==(const ControlGroup&) const = default;
};

/// This process's groups for `controller` ("cpu", "memory") and their parents, which limit it too, up to what is
/// mounted. Empty where none is.
std::vector<ControlGroup> control_groups(std::string_view controller);

/// The same from the texts of /proc/self/cgroup and /proc/self/mountinfo. A group outside of what is mounted, as in a
/// container that sees its own alone, is taken for the mounted one.
std::vector<ControlGroup> control_groups(std::string_view controller, std::string_view cgroup,
                                         std::string_view mountinfo);

}  // namespace resnet

#include "base/control_groups.h"

#include <algorithm>

#include "base/system_file.h"

namespace resnet {
namespace {

/// Between separators, empty parts too.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool lists(std::string_view names, std::string_view name) {
  const std::vector<std::string_view> parts = split(names, ',');
  return std::find(parts.begin(), parts.end(), name) != parts.end();
}

/// A hierarchy of groups in the file system: its group `root` is the folder `point`.
struct Mount {
  std::string_view root, point;
};

/// Where version 2, or the hierarchy of version 1 that has the controller, is mounted first. `point` is empty where it
/// is not.
Mount find_mount(std::string_view mountinfo, int version, std::string_view controller) {
  for (const std::string_view line : split(mountinfo, '\n')) {
    const std::vector<std::string_view> fields = split(line, ' ');   // id, parent, device, root, point, options...
    const auto dash = std::find(fields.begin(), fields.end(), "-");  // ...then type, source, the file system's options
    if (dash - fields.begin() < 6 || fields.end() - dash < 4) continue;
    if (dash[1] != (version == 2 ? "cgroup2" : "cgroup")) continue;
    if (version == 1 && !lists(dash[3], controller)) continue;
    return {fields[3], fields[4]};
  }
  return {};
}

/// The part of a group's path below the mount's root, without a slash at its end.
std::string_view below(std::string_view group, std::string_view root) {
  if (root == "/") root = "";
  const bool inside = group.substr(0, root.size()) == root && group.find("/..") == std::string_view::npos &&
                      (group.size() == root.size() || group[root.size()] == '/');
  group = inside ? group.substr(root.size()) : "";
  return group == "/" ? "" : group;
}

}  // namespace

std::string ControlGroup::text(const std::string& name) const { return system_file(folder + "/" + name); }

std::vector<ControlGroup> control_groups(std::string_view controller, std::string_view cgroup,
                                         std::string_view mountinfo) {
  std::vector<ControlGroup> groups;
  for (const std::string_view line : split(cgroup, '\n')) {  // "4:cpu,cpuacct:/a/b", and "0::/a/b" of version 2
    const size_t first = line.find(':');
    const size_t second = first == std::string_view::npos ? first : line.find(':', first + 1);
    if (second == std::string_view::npos) continue;
    const std::string_view controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    const int version = controllers.empty() ? 2 : 1;
    if (group.empty() || group.front() != '/' || (version == 1 && !lists(controllers, controller))) continue;
    const Mount mount = find_mount(mountinfo, version, controller);
    if (mount.point.empty()) continue;
    std::string rest(below(group, mount.root));
    groups.push_back({std::string(mount.point) + rest, version});
    while (!rest.empty()) {
      rest.resize(rest.rfind('/'));
      groups.push_back({std::string(mount.point) + rest, version});
    }
  }
  return groups;
}

std::vector<ControlGroup> control_groups(std::string_view controller) {
  return control_groups(controller, system_file("/proc/self/cgroup"), system_file("/proc/self/mountinfo"));
}

}  // namespace resnet

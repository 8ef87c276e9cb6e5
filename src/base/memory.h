#pragma once
// How much memory is left, asked before much of it is taken: the kernel grants more than there is and kills the process
// that then uses it.

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace resnet {

/// Bytes that this process may still take: what the machine has and what its control groups (version 2) allow.
/// SIZE_MAX where neither is known.
size_t available_memory();

/// Throws ResourceError (limit) when `needed` bytes, a double since absurd sizes pass 2^64, are more than `available`.
void require_memory(double needed, size_t available);

// The parts of available_memory, each from the text of a file. None where the text does not say.

/// MemAvailable of /proc/meminfo, in bytes.
std::optional<size_t> machine_memory(std::string_view meminfo);
/// The process's group of version 2 in /proc/self/cgroup: "/" or "/a/b".
std::optional<std::string> control_group(std::string_view cgroup);

/// Folders of this process's control group and of its parents, which limit it too, up to the root's.
std::vector<std::string> control_group_folders();
/// What memory.max leaves beside memory.current. The page cache that memory.stat tells of is counted as free: it makes
/// room. None where there is no limit.
std::optional<size_t> group_memory(std::string_view max, std::string_view current, std::string_view stat);

}  // namespace resnet

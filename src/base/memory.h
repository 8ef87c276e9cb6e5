#pragma once
// How much memory is left, asked before much of it is taken: the kernel grants more than there is and kills the process
// that then uses it.

#include <cstddef>
#include <optional>
#include <string_view>

namespace resnet {

/// Bytes that this process may still take: what the machine has and what its control groups allow.
/// SIZE_MAX where neither is known.
size_t available_memory();

/// Throws ResourceError (limit) when `needed` bytes, a double since absurd sizes pass 2^64, are more than `available`.
void require_memory(double needed, size_t available);

// The parts of available_memory, each from the text of a file. None where the text does not say.

/// MemAvailable of /proc/meminfo, in bytes.
std::optional<size_t> machine_memory(std::string_view meminfo);
/// What a control group's limit leaves beside what it holds: memory.max and memory.current, in version 1
/// memory.limit_in_bytes and memory.usage_in_bytes. The page cache that memory.stat tells of is counted as free: it
/// makes room. None where there is no limit.
std::optional<size_t> group_memory(std::string_view limit, std::string_view held, std::string_view stat);

}  // namespace resnet

#pragma once

#include <string>

namespace resnet {

/// What the linker made of this program's, or this shared library's, content (the note .note.gnu.build-id, in hex):
/// another compilation that differs in anything has another. Empty where the linker was told to leave it out.
std::string build_id();

}  // namespace resnet

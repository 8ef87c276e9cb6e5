#include "base/build_id.h"

#include <elf.h>
#include <link.h>

#include <cstdint>
#include <cstring>

#include "base/align.h"
#include "base/format.h"

namespace resnet {
namespace {

struct Search {
  uintptr_t inside;  ///< an address in the module that is meant
  std::string id;
};

bool contains(const dl_phdr_info& module, uintptr_t address) {
  for (int i = 0; i < module.dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = module.dlpi_phdr[i];
    const uintptr_t begin = module.dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD && address >= begin && address - begin < segment.p_memsz) return true;
  }
  return false;
}

/// The id among the notes of one segment; empty when it is not there.
std::string id_in(const char* notes, size_t bytes, size_t alignment) {
  constexpr char kOwner[] = "GNU";
  for (size_t at = 0; bytes - at >= sizeof(ElfW(Nhdr));) {
    ElfW(Nhdr) note;
    std::memcpy(&note, notes + at, sizeof note);
    const size_t name = at + sizeof note;
    const size_t content = name + align_up(note.n_namesz, alignment);
    const size_t end = content + align_up(note.n_descsz, alignment);
    if (end > bytes) break;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof kOwner &&
        std::memcmp(notes + name, kOwner, sizeof kOwner) == 0) {
      std::string hex;
      for (size_t i = 0; i < note.n_descsz; ++i)
        hex += fmt::format("{:02x}", static_cast<unsigned char>(notes[content + i]));
      return hex;
    }
    at = end;
  }
  return {};
}

int look(dl_phdr_info* module, size_t, void* data) {
  auto& search = *static_cast<Search*>(data);
  if (!contains(*module, search.inside)) return 0;
  for (int i = 0; i < module->dlpi_phnum && search.id.empty(); ++i) {
    const ElfW(Phdr)& segment = module->dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto* notes = reinterpret_cast<const char*>(module->dlpi_addr + segment.p_vaddr);
    search.id = id_in(notes, segment.p_memsz, segment.p_align == 8 ? 8 : 4);
  }
  return 1;  // no other module has the address
}

}  // namespace

std::string build_id() {
  Search search{.inside = reinterpret_cast<uintptr_t>(&build_id), .id = {}};
  dl_iterate_phdr(look, &search);
  return search.id;
}

}  // namespace resnet

#!/usr/bin/python3
"""Runs a Linux program on an emulated processor: AVX-512, VNNI and AVX512-FP16 on a machine that lacks them.

    tools/emulator/run.sh PROGRAM [ARGUMENT...]      (installs itself under build/emulator)

The processor is Bochs' model of a Sapphire Rapids Xeon (PyPI's bochscpu-python; MIT, around Bochs' LGPL), some forty million
instructions a second. The system is this file: one process on one processor, no signals. Its system calls go to the host's
kernel with pointers moved, which is simple as all memory is one window whose addresses differ from the host's by a constant.
Threads take turns where they wait for each other (futex, sched_yield). What a program reads from CPUID is the emulated
processor's, so libraries that compile for it as they run (oneDNN) do so here.

Exit code: the program's; 139 after an exception (page fault, misaligned access, unknown instruction), told on stderr; 70 where
all threads wait for ever.
"""
import bisect
import ctypes
import errno
import os
import struct
import sys

import bochscpu
import bochscpu.memory

BASE = 0x100_0000_0000  # of the window, as the program sees it
SIZE = 0xA000_0000  # 2.5 GiB, taken from the host as they are touched
PHYSICAL = 0x100_0000  # of the window
PROGRAM, HEAP, INTERPRETER, MAPPINGS = (BASE + offset for offset in (0x40_0000, 0x400_0000, 0x1000_0000, 0x2000_0000))
STACK = BASE + SIZE - 0x1000
KERNEL = 0xFFFF_FF80_0000_0000  # where SYSCALL goes
PAGE = 4096
MADV_DONTNEED = 4
SAPPHIRE_RAPIDS = 30  # of Bochs' enumeration of processors

bochs = ctypes.CDLL(bochscpu._bochscpu.__file__)
libc = ctypes.CDLL(None, use_errno=True)
for function in ("cpu_get_reg64", "cpu_get_pc", "cpu_get_cr2"):
    getattr(bochs, function).restype = ctypes.c_uint64
bochs.sim_get_param_enum.restype = ctypes.c_void_p
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.syscall.restype = ctypes.c_long

RAX, RDX, RSP, RSI, RDI, R8, R9, R10 = 0, 2, 4, 6, 7, 8, 9, 10  # Bochs' numbers
FS = 4

# System calls that the host answers: number -> which arguments are pointers.
FORWARDED = {
    0: (1,), 1: (1,), 3: (), 4: (0, 1), 5: (1,), 6: (0, 1), 7: (0,), 8: (), 16: (2,), 17: (1,), 18: (1,), 21: (0,), 22: (0,),
    32: (), 33: (), 39: (), 63: (0,), 72: (), 73: (), 74: (), 75: (), 76: (0,), 77: (), 79: (0,), 80: (0,), 82: (0, 1), 83: (0,),
    84: (0,), 87: (0,), 89: (0, 1), 91: (), 95: (), 96: (0, 1), 97: (1,), 98: (1,), 99: (0,), 102: (), 104: (), 107: (), 108: (),
    137: (0, 1), 138: (1,), 201: (0,), 217: (1,), 228: (1,), 229: (1,), 230: (2, 3), 257: (1,), 258: (1,), 262: (1, 2), 263: (1,),
    264: (1, 3), 267: (1, 2), 269: (1,), 280: (1, 2), 285: (), 293: (0,), 302: (2, 3), 316: (1, 3), 318: (0,), 332: (1, 4),
}
# Those without meaning where there are no signals and one processor: rt_sigaction, rt_sigprocmask, mincore, sigaltstack,
# scheduling, set_robust_list.
IGNORED = {13, 14, 27, 131, 144, 145, 203, 273}


class Memory:
    """The window: the program's address + `offset` is the host's."""

    def __init__(self):
        private_anonymous_noreserve = 0x4022
        self.pool = libc.mmap(None, PHYSICAL + SIZE, 3, private_anonymous_noreserve, -1, 0)
        if self.pool in (None, ctypes.c_void_p(-1).value):
            raise MemoryError("emulator: no room for the window")
        self.offset = self.pool + PHYSICAL - BASE
        self.break_ = HEAP
        self.free = [(MAPPINGS, STACK - (8 << 20))]  # ranges, sorted, no two of them adjacent
        self.page_tables()

    def page_tables(self):
        """Below PHYSICAL: the window in pages of 2 MiB, open to the program, and one page of code for SYSCALL."""
        fourth, third, second = 0x1000, 0x2000, 0x1_0000
        present, user = 3, 7
        self.entry(fourth, BASE >> 39, third | user)
        for i in range(SIZE >> 21):
            table = second + PAGE * (i >> 9)
            self.entry(third, (BASE >> 30) + (i >> 9), table | user)
            self.entry(table, i, PHYSICAL + (i << 21) | 0x80 | user)
        code = 0x7000
        for table, shift, to in ((fourth, 39, 0x6000), (0x6000, 30, 0x5000), (0x5000, 21, 0x4000), (0x4000, 12, code)):
            self.entry(table, KERNEL >> shift, to | present)
        # clflush (%rsp), which Bochs reports to us; sysretq
        ctypes.memmove(self.pool + code, bytes.fromhex("0fae3c24480f07"), 7)
        self.root = fourth

    def entry(self, table, index, value):
        ctypes.c_uint64.from_address(self.pool + table + 8 * (index & 511)).value = value

    def host(self, address):
        if not BASE <= address < BASE + SIZE:
            raise ValueError(f"emulator: address {address:#x} outside the window")
        return address + self.offset

    def write(self, address, data):
        ctypes.memmove(self.host(address), data, len(data))

    def read(self, address, count):
        return ctypes.string_at(self.host(address), count)

    def clear(self, address, count):
        ctypes.memset(self.host(address), 0, count)

    def map(self, count):
        """Address of `count` bytes of zeros, or None."""
        count = in_pages(count)
        for i, (start, end) in enumerate(self.free):
            if end - start >= count:
                self.free[i:i + 1] = [(start + count, end)] if end - start > count else []
                return start
        return None

    def unmap(self, address, count):
        """What glibc trims off a mapping's ends, too, so neighbours become one range again."""
        start, end = address, address + in_pages(count)
        libc.madvise(self.host(start), end - start, MADV_DONTNEED)
        at = bisect.bisect(self.free, (start, end))
        if at < len(self.free) and self.free[at][0] == end:
            end = self.free.pop(at)[1]
        if at and self.free[at - 1][1] == start:
            at -= 1
            start = self.free.pop(at)[0]
        self.free.insert(at, (start, end))


def in_pages(count):
    return (count + PAGE - 1) // PAGE * PAGE


def fs_base(new=None):
    """Sets it, if asked to; what it was."""
    fields = [ctypes.c_uint32(), ctypes.c_uint16(), ctypes.c_uint64(), ctypes.c_uint32(), ctypes.c_uint16()]
    bochs.cpu_get_seg(0, FS, *(ctypes.byref(field) for field in fields))
    was = fields[2].value
    if new is not None:
        fields[2].value = new
        bochs.cpu_set_seg(0, FS, *fields)
    return was


class Thread:
    """What the processor holds while another thread runs, which is always in a system call: SYSRET takes its instruction
    pointer and flags from registers. Bochs gives no access to mask registers; none lives across glibc's system calls."""

    def __init__(self, number):
        self.number = number
        self.clear_at = 0  # written and woken at its end, for who joins it
        self.waits_at = self.has_timeout = None
        self.save()

    def save(self):
        self.registers = [bochs.cpu_get_reg64(0, i) for i in range(16)]
        self.fs = fs_base()
        self.vectors = (ctypes.c_uint64 * (8 * 32))()
        for i in range(32):
            bochs.cpu_get_zmm(0, i, ctypes.byref(self.vectors, 64 * i))
        self.mxcsr = bochs.cpu_get_mxcsr(0)

    def restore(self):
        for i, value in enumerate(self.registers):
            bochs.cpu_set_reg64(0, i, ctypes.c_uint64(value))
        fs_base(self.fs)
        for i in range(32):
            bochs.cpu_set_zmm(0, i, ctypes.byref(self.vectors, 64 * i))
        bochs.cpu_set_mxcsr(0, self.mxcsr)


class Process:
    def __init__(self, arguments, environment):
        self.memory = Memory()
        self.code = None
        self.threads = []  # the first one runs
        entry, headers, count, interpreter, end = self.load(arguments[0], PROGRAM)
        self.memory.break_ = self.heap = max(in_pages(end), HEAP)
        self.start, base = entry, 0
        if interpreter:
            self.start, base = self.load(interpreter, INTERPRETER)[0], INTERPRETER
        self.stack = self.make_stack(arguments, environment, entry, headers, count, base)

    def load(self, path, base):
        """A position-independent ELF file at `base` -> entry, address and number of program headers, interpreter, end."""
        with open(path, "rb") as file:
            data = file.read()
        if data[:5] != b"\x7fELF\x02" or struct.unpack_from("<H", data, 16)[0] != 3:
            raise SystemExit(f"emulator: error: {path}: expected a position-independent program for x86-64")
        entry, table = struct.unpack_from("<QQ", data, 24)
        (count,) = struct.unpack_from("<H", data, 56)
        interpreter, headers, end = None, 0, 0
        for i in range(count):
            kind, _, offset, address, _, in_file, in_memory, _ = struct.unpack_from("<IIQQQQQQ", data, table + 56 * i)
            if kind == 1:
                self.memory.write(base + address, data[offset : offset + in_file])
                end = max(end, base + address + in_memory)
                if offset <= table < offset + in_file:
                    headers = base + address + table - offset
            elif kind == 3:
                interpreter = data[offset : offset + in_file - 1].decode()
        return base + entry, headers, count, interpreter, end

    def make_stack(self, arguments, environment, entry, headers, count, base):
        """Strings, then argc, argv, envp and the auxiliary vector, as the kernel leaves them."""
        top = STACK

        def push(data):
            nonlocal top
            top -= len(data)
            self.memory.write(top, data)
            return top

        random, name, platform = push(os.urandom(16)), push(os.fsencode(arguments[0]) + b"\0"), push(b"x86_64\0")
        argv = [push(os.fsencode(text) + b"\0") for text in arguments]
        envp = [push(os.fsencode(text) + b"\0") for text in environment]
        auxiliary = [(3, headers), (4, 56), (5, count), (6, PAGE), (7, base), (9, entry), (11, 0), (12, 0), (13, 0), (14, 0), (23, 0),
                     (25, random), (31, name), (15, platform), (16, 0x178BFBFF), (17, 100), (51, 3632), (0, 0)]
        words = [len(argv), *argv, 0, *envp, 0, *(word for pair in auxiliary for word in pair)]
        top = (top - 8 * len(words)) & ~15
        self.memory.write(top, struct.pack(f"<{len(words)}Q", *words))
        return top

    def run(self):
        # Before there is a processor, as Bochs forgets the instructions that its first one lacks.
        set_enum = getattr(bochs, "_ZN15bx_param_enum_c3setEl")
        set_enum(ctypes.c_void_p(bochs.sim_get_param_enum(b"cpu.model")), ctypes.c_long(SAPPHIRE_RAPIDS))
        session = bochscpu.Session()
        state = bochscpu.State()
        state.cr0, state.cr3, state.cr4, state.efer = 0x8005_0033, self.memory.root, 0x5_0668, 0xD01  # 64 bits, SSE, XSAVE, SYSCALL
        state.xcr0 = 0xE7  # x87, SSE, AVX, and AVX-512's masks and registers
        state.mxcsr, state.mxcsr_mask, state.fpcw, state.fptw = 0x1F80, 0xFFFF, 0x37F, 0xFFFF
        state.star, state.lstar, state.sfmask = 0x23 << 48 | 0x10 << 32, KERNEL, 0x200
        state.apic_base, state.pat = 0xFEE0_0900, 0x0007_0406_0007_0406
        state.rip, state.rsp, state.rflags = self.start, self.stack, 0x202

        def segment(selector, attributes):
            it = bochscpu.Segment()
            it.present, it.selector, it.base, it.limit, it.attr = True, selector, 0, 0xFFFF_FFFF, attributes
            return it

        state.cs, state.tr = segment(0x33, 0xA0FB), segment(0x40, 0x8B)
        for name in ("ss", "ds", "es", "fs", "gs"):
            setattr(state, name, segment(0x2B, 0xC0F3))
        session.cpu.state = state
        self.threads = [Thread(os.getpid())]

        def missing_page(physical):
            page = physical & ~(PAGE - 1)
            bochscpu.memory.page_insert(page, self.memory.pool + page)

        def system_call(_session, _cpu, _linear, _physical=0):
            number = bochs.cpu_get_reg64(0, RAX)
            arguments = [bochs.cpu_get_reg64(0, register) for register in (RDI, RSI, RDX, R10, R8, R9)]
            result = self.schedule(number, arguments)
            if result is not None:
                bochs.cpu_set_reg64(0, RAX, ctypes.c_uint64(result & 0xFFFF_FFFF_FFFF_FFFF))
            if self.code is not None:
                session.stop()

        def exception(_session, _cpu, vector, error):
            at = bochs.cpu_get_pc(0)
            bytes_ = self.memory.read(at, 16).hex(" ") if BASE <= at < BASE + SIZE - 16 else ""
            print(f"emulator: exception {vector}, error {error:#x}, at {at:#x} ({at - PROGRAM:#x} of the program), "
                  f"CR2 {bochs.cpu_get_cr2(0):#x}: {bytes_}", file=sys.stderr)
            self.code = 139
            session.stop()

        hook = bochscpu.Hook()
        hook.clflush, hook.exception = system_call, exception
        session.missing_page_handler = missing_page
        session.run([hook])
        return self.code

    def schedule(self, number, a):
        """The system calls that change which thread runs; a result, or None where the running thread's is in its registers."""
        memory, me = self.memory, self.threads[0]
        if number == 24:  # sched_yield
            return self.switch(0)
        if number == 56 and a[0] & 0x10000:  # clone of a thread
            flags, stack, parent_number, child_number, tls = a[:5]
            child = Thread(me.number + len(self.threads) + 1000)
            child.registers[RAX], child.registers[RSP], child.fs = 0, stack, tls
            for flag, at in ((0x10_0000, parent_number), (0x100_0000, child_number)):
                if flags & flag:
                    memory.write(at, struct.pack("<I", child.number))
            child.clear_at = child_number if flags & 0x20_0000 else 0
            self.threads.append(child)
            return child.number
        if number == 60 and len(self.threads) > 1:  # exit of a thread
            if me.clear_at:
                memory.write(me.clear_at, bytes(4))
                self.wake(me.clear_at, 1)
            me.waits_at = 0
            self.switch(0)
            self.threads.remove(me)
            return None
        if number == 186:  # gettid
            return me.number
        if number == 202:  # futex
            operation = a[1] & 127
            if operation in (0, 9):
                if memory.read(a[0], 4) != struct.pack("<I", a[2] & 0xFFFF_FFFF):
                    return -errno.EAGAIN
                me.waits_at, me.has_timeout = a[0], a[3] != 0
                return self.switch(0)
            if operation in (1, 10):
                return self.wake(a[0], a[2])
            print(f"emulator: unknown futex operation {operation}", file=sys.stderr)
            return -errno.ENOSYS
        return self.system_call(number, a)

    def wake(self, address, most):
        sleepers = [thread for thread in self.threads if thread.waits_at == address][:most]
        for thread in sleepers:
            thread.waits_at = None
        return len(sleepers)

    def switch(self, result):
        """To the next thread that waits for nothing; the one that leaves will find `result`."""
        me = self.threads[0]
        me.save()
        me.registers[RAX] = result
        order = self.threads[1:] + [me]
        ready = next((thread for thread in order if thread.waits_at is None), None)
        if ready is None:
            ready = next((thread for thread in order if thread.waits_at != 0 and thread.has_timeout), None)
            if ready is None:
                print("emulator: all threads wait for each other", file=sys.stderr)
                self.code = 70
                return None
            ready.waits_at = None
            ready.registers[RAX] = -errno.ETIMEDOUT & 0xFFFF_FFFF_FFFF_FFFF
        at = order.index(ready)
        self.threads = order[at:] + order[:at]
        ready.restore()
        return None

    def system_call(self, number, a):
        """A result or a negative errno."""
        memory = self.memory
        if number in (60, 231):  # exit, exit_group
            self.code = a[0] & 255
            return 0
        if number in FORWARDED:
            moved = [memory.host(x) if i in FORWARDED[number] and x != 0 else x for i, x in enumerate(a)]
            result = libc.syscall(ctypes.c_long(number), *[ctypes.c_uint64(x) for x in moved])
            return -ctypes.get_errno() if result == -1 else result
        if number in IGNORED:
            return 0
        if number == 9:  # mmap
            address, count, _, flags, file, offset = a
            if flags & 0x10:  # MAP_FIXED
                memory.clear(address, in_pages(count))
            else:
                address = memory.map(count)
                if address is None:
                    return -errno.ENOMEM
            file = ctypes.c_int(file & 0xFFFF_FFFF).value
            if file >= 0:
                memory.write(address, os.pread(file, count, offset))
            return address
        if number == 10:  # mprotect: all memory is open
            return 0
        if number == 11:  # munmap
            memory.unmap(a[0], a[1])
            return 0
        if number == 12:  # brk
            if self.heap <= a[0] < INTERPRETER:
                if a[0] < memory.break_:
                    memory.clear(a[0], memory.break_ - a[0])
                memory.break_ = a[0]
            return memory.break_
        if number == 20:  # writev
            parts = [struct.unpack("<QQ", memory.read(a[1] + 16 * i, 16)) for i in range(a[2])]
            return os.write(a[0], b"".join(memory.read(at, count) for at, count in parts if count))
        if number == 25:  # mremap
            old, new = in_pages(a[1]), in_pages(a[2])
            if new <= old:
                return a[0]
            address = memory.map(new)
            if address is None:
                return -errno.ENOMEM
            memory.write(address, memory.read(a[0], old))
            memory.unmap(a[0], old)
            return address
        if number == 28:  # madvise; MADV_DONTNEED leaves zeros
            if a[2] == MADV_DONTNEED:
                memory.clear(a[0], a[1])
            return 0
        if number == 158 and a[0] == 0x1002:  # arch_prctl, ARCH_SET_FS
            fs_base(a[1])
            return 0
        if number == 204:  # sched_getaffinity: one processor
            memory.write(a[2], b"\1" + bytes(7))
            return 8
        if number == 218:  # set_tid_address
            return os.getpid()
        if number not in (158, 334, 435):  # arch_prctl, rseq, clone3: programs do without
            print(f"emulator: unknown system call {number}", file=sys.stderr)
        return -errno.ENOSYS


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    keep = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    keep |= {"OMP_WAIT_POLICY": "passive"}  # waiting threads should not spin: there is one processor
    sys.exit(Process(sys.argv[1:], [f"{key}={value}" for key, value in keep.items()]).run())

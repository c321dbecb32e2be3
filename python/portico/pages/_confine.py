"""Takes from a worker what it does not need, and becomes it. Run as a program of its own, before each worker:

    python -I -S _confine.py BINARY ADDRESS_SPACE [ARGUMENT...]

The interpreter of pydantic-monty gives pages no way to files, network or processes. This is for the day on which it has
a hole: then whoever is through it finds a process that can read shared libraries, compute, and write to the pipe to its
parent, and nothing else. What the kernel does not offer is missing without an error here; `missing` says so before.
Nothing but the standard library is imported, and little of that: this is what starting a worker costs.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

# linux/prctl.h, linux/securebits.h
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS, _PR_SET_NO_NEW_PRIVS, _PR_SET_NAME = 24, 28, 38, 15
_SECUREBITS = 0b11101111  # NOROOT, NO_SETUID_FIXUP, KEEP_CAPS off, NO_CAP_AMBIENT_RAISE, each with its lock
_CAPABILITY_VERSION_3 = 0x20080522

# linux/landlock.h: how many rights to files each version of the interface knows.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_EXECUTE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 2, 1 << 3

# linux/audit.h, linux/seccomp.h, linux/filter.h
_ALLOW, _KILL, _EPERM, _ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
_LOAD, _JUMP_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_CLONE_THREAD = 0x00010000
_WRITES = 0o3 | 0o100 | 0o1000  # O_ACCMODE, O_CREAT, O_TRUNC

# The system calls that a worker makes, its threads and its end; `execve` is how it begins. By name: x86-64, AArch64.
_CALLS = {
    "read": (0, 63), "write": (1, 64), "close": (3, 57), "fstat": (5, 80), "lseek": (8, 62), "mmap": (9, 222),
    "mprotect": (10, 226), "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "pread64": (17, 67), "readv": (19, 65),
    "writev": (20, 66), "access": (21, None), "sched_yield": (24, 124), "mremap": (25, 216), "madvise": (28, 233),
    "nanosleep": (35, 101), "getpid": (39, 172), "exit": (60, 93), "execve": (59, 221), "fcntl": (72, 25),
    "getcwd": (79, 17), "sigaltstack": (131, 132), "arch_prctl": (158, None), "gettid": (186, 178),
    "futex": (202, 98), "sched_getaffinity": (204, 123), "set_tid_address": (218, 96), "restart_syscall": (219, 128),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "exit_group": (231, 94), "epoll_wait": (232, None),
    "epoll_ctl": (233, 21), "newfstatat": (262, 79), "poll": (7, None), "readlinkat": (267, 78),
    "faccessat": (269, 48), "ppoll": (271, 73), "set_robust_list": (273, 99), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "prlimit64": (302, 261), "getrandom": (318, 278),
    "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293), "faccessat2": (439, 439),
}  # fmt: skip
_CLONE, _CLONE3, _OPENAT, _PRCTL, _TGKILL = (56, 220), (435, 435), (257, 56), (157, 167), (234, 131)
_MACHINES = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}


def missing() -> list[str]:
    """What this kernel or machine does not offer, in words. Changes nothing."""
    if sys.platform != "linux":
        return ["landlock", "seccomp", "capabilities"]
    gone = [] if _landlock_version() > 0 else ["landlock"]
    machine = _MACHINES.get(os.uname().machine)
    action = ctypes.c_uint32(_EPERM & 0xFFFF0000)
    if machine is None or _libc().syscall(machine[2], 2, 0, ctypes.byref(action)) != 0:
        gone.append("seccomp")
    return gone


def main(arguments: list[str]) -> None:
    binary, address_space, *rest = arguments
    os.closerange(3, 1 << 16)  # What the program left to be inherited.
    os.chdir("/")
    _limit(int(address_space))
    gone = missing()
    if sys.platform == "linux":
        _drop_capabilities()
        _must(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if "landlock" not in gone:
        _restrict_files(binary)
    if "seccomp" not in gone:
        _filter_calls()
    # glibc would ask the kernel for every few kilobytes, and give them back after each page: 30 calls for each of them.
    os.execve(binary, [binary, *rest], {"MALLOC_TOP_PAD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "16777216"})


def _limit(address_space: int) -> None:
    import resource

    for name, most in (
        ("CORE", 0),
        ("FSIZE", 0),
        ("NOFILE", 32),
        ("MEMLOCK", 0),
        ("MSGQUEUE", 0),
        ("AS", address_space),
    ):
        number = getattr(resource, "RLIMIT_" + name, None)
        if number is None:
            continue
        try:
            resource.setrlimit(number, (most, most))
        except (OSError, ValueError):
            if sys.platform == "linux":  # Others do not know them all.
                raise


def _drop_capabilities() -> None:
    """All of them, also those that a program run by root would get back."""
    libc = _libc()
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # Fails where there are none to drop.
    libc.prctl(_PR_SET_SECUREBITS, _SECUREBITS, 0, 0, 0)
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    none = ctypes.create_string_buffer(struct.pack("=6I", *[0] * 6))
    _must(libc.capset(head, none), "capset")


def _restrict_files(binary: str) -> None:
    version = _landlock_version()
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    network = 0b11 if version >= 4 else 0
    scopes = 0b11 if version >= 6 else 0
    attributes = struct.pack("=QQQ", rights, network, scopes)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _must(_libc().syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0), "landlock_create_ruleset")
    loader = _loader(binary)
    libraries = {os.path.realpath(path) for path in ("/lib", "/lib64", "/usr/lib", "/usr/lib64")}
    for path, allowed in (
        (binary, _EXECUTE | _READ_FILE),
        (loader, _EXECUTE | _READ_FILE),
        (os.path.dirname(loader or ""), _READ_FILE | _READ_DIR),
        ("/etc/ld.so.cache", _READ_FILE),
        *((library, _READ_FILE | _READ_DIR) for library in sorted(libraries)),
    ):
        if not path or not os.path.exists(path):
            continue
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", allowed, opened)
        _must(_libc().syscall(_LANDLOCK_ADD, rules, 1, rule, 0), f"landlock_add_rule for {path}")
        os.close(opened)
    _must(_libc().syscall(_LANDLOCK_RESTRICT, rules, 0), "landlock_restrict_self")
    os.close(rules)


def _loader(binary: str) -> str | None:
    """The dynamic loader that an ELF file of 64 bits names."""
    with open(binary, "rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01":
            return None
        offset, size, count = struct.unpack("<Q14xHH", head[32:58])
        file.seek(offset)
        table = file.read(size * count)
        for at in range(0, len(table), size):
            kind, _, start = struct.unpack_from("<IIQ", table, at)
            if kind == 3:  # PT_INTERP
                file.seek(start)
                return os.path.realpath(file.read(4096).split(b"\0")[0].decode())
    return None


def _filter_calls() -> None:
    column, architecture, seccomp = _MACHINES[os.uname().machine]
    program = [
        (_LOAD, 0, 0, 4),  # the architecture
        (_JUMP_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # the number of the call
    ]
    # Threads, and no processes. What clone3 wants stands in memory, where no filter sees it; libc falls back to clone.
    program += _when(_CLONE[column], 0, _CLONE_THREAD, _CLONE_THREAD)
    program += [(_JUMP_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _ENOSYS)]
    # Files to read.
    program += _when(_OPENAT[column], 2, _WRITES, 0)
    program += _when(_PRCTL[column], 0, 0xFFFFFFFF, _PR_SET_NAME)
    # Signals to itself: that is how it aborts.
    program += _when(_TGKILL[column], 0, 0xFFFFFFFF, os.getpid())
    for numbers in _CALLS.values():
        number = numbers[column]
        if number is not None:
            program += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    program.append((_RETURN, 0, 0, _EPERM))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    filters = struct.pack("@HP", len(program), ctypes.addressof(code))
    _must(_libc().syscall(seccomp, 1, 0, filters), "seccomp")


def _when(call: int, argument: int, mask: int, wanted: int) -> list[tuple[int, int, int, int]]:
    """Allows a call where an argument, under a mask, has a value, and refuses it else."""
    return [
        (_JUMP_EQUAL, 0, 5, call),
        (_LOAD, 0, 0, 16 + 8 * argument),  # the lower half: both machines are little-endian
        (_AND, 0, 0, mask),
        (_JUMP_EQUAL, 0, 1, wanted),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _EPERM),
    ]


def _landlock_version() -> int:
    return int(_libc().syscall(_LANDLOCK_CREATE, None, 0, 1))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main(sys.argv[1:])

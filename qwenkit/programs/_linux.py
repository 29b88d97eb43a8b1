"""What Linux itself refuses the process of a program: processes, network, and others' files.

Two means that need neither root nor a container: Landlock (Linux 5.13; docs.kernel.org,
"Landlock: unprivileged access control") for files, and seccomp ("Seccomp BPF") for system calls.
Where the kernel lacks one of them, the audit hook of `_child.py` alone refuses. This file runs in
the child, as that one does.
"""

import ctypes
import os
import struct
import sys

# System call numbers: x86_64, aarch64 (None: it has no such call).
_CALLS = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "rt_sigqueueinfo": (129, 138), "tkill": (200, 130),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "setpriority": (141, 140),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "io_uring_setup": (425, 425),
    "bpf": (321, 280), "keyctl": (250, 219),
}  # fmt: skip
_KILL, _TGKILL, _CLONE, _PRLIMIT = (62, 129), (234, 131), (56, 220), (302, 261)
_CLONE3 = 435  # the C library calls clone where this does not exist
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column; AUDIT_ARCH
_CLONE_THREAD = 0x10000
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38

_READ_FILE, _READ_FOLDER, _WRITE_FILE = 4, 8, 2  # LANDLOCK_ACCESS_FS_*
_RIGHTS = {1: 2**13 - 1, 2: 2**14 - 1}  # all that a version knows; from 3 on 2**15 - 1
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446


def enclose(folder: str) -> None:
    """Restrict this process to a folder, and to itself; no way back.

    What the kernel does not have is left out, without an error.
    """
    libc = ctypes.CDLL(None)
    libc.syscall.restype = ctypes.c_long
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, which both ask for
    _files(libc, folder)
    _calls(libc)
    for name in [name for name in sys.modules if name.split(".")[0] in ("ctypes", "_ctypes")]:
        del sys.modules[name]  # imported again, it meets the audit hook


def _files(libc: ctypes.CDLL, folder: str) -> None:
    """Allow the folder, and reading the standard library and what it loads."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    every = _RIGHTS.get(version, 2**15 - 1)
    rules = libc.syscall(_CREATE_RULESET, struct.pack("Q", every), 8, 0)
    readable = _READ_FILE | _READ_FOLDER
    allowed = {
        folder: every, os.devnull: _READ_FILE | _WRITE_FILE, "/dev/urandom": _READ_FILE,
        **dict.fromkeys((sys.base_prefix, os.path.dirname(os.__file__)), readable),
        **dict.fromkeys(("/usr", "/lib", "/lib64", "/nix/store"), readable),
    }  # fmt: skip
    for path, rights in allowed.items():
        try:
            handle = os.open(path, os.O_PATH)
        except OSError:
            continue
        libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, handle), 0)
        os.close(handle)
    libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _calls(libc: ctypes.CDLL) -> None:
    """Refuse system calls that start processes, open sockets, or reach into other processes."""
    if os.uname().machine not in _MACHINES:
        return
    column, architecture = _MACHINES[os.uname().machine]
    refuse, allow = (_RETURN, 0, 0, _ERROR | _EPERM), (_RETURN, 0, 0, _ALLOW)
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, architecture), refuse]
    program += [(_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, 0x40000000), refuse]  # x32's calls
    program += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERROR | _ENOSYS)]
    for numbers in _CALLS.values():
        number = numbers[column]
        if number is not None:
            program += [(_EQUAL, 0, 1, number), refuse]
    # Allowed by the first argument: threads, a signal to itself, and its own limits.
    for numbers, test, value in (
        (_CLONE, _HAS_BIT, _CLONE_THREAD), (_KILL, _EQUAL, os.getpid()),
        (_TGKILL, _EQUAL, os.getpid()), (_PRLIMIT, _EQUAL, 0),
    ):  # fmt: skip
        program += [(_EQUAL, 0, 4, numbers[column]), (_LOAD, 0, 0, _FIRST)]
        program += [(test, 0, 1, value), allow, refuse]
    program.append(allow)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in program))
    header = struct.pack("HP", len(program), ctypes.addressof(code))
    libc.prctl(22, 2, header, 0, 0)  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER

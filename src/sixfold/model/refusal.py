"""A system call that the kernel refused to a pod's process, mostly for want of a capability.

The kernel asks for capabilities more often than somebody wants what they are for: whether memory
may be overcommitted, whether a limit counts. What is such a question is listed here; it is told to
nobody. Numbers are those of linux/capability.h and of x86-64; a 32-bit call has COMPAT added.
"""

from __future__ import annotations

from dataclasses import dataclass

CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}
COMPAT, CALLS_MAX = 512, 1024  # enum system_call of bpf/sixfold.h

SYSTEM_CALLS = {
    **{0: "read", 1: "write", 2: "open", 4: "stat", 6: "lstat", 9: "mmap", 10: "mprotect"},
    **{11: "munmap", 12: "brk", 16: "ioctl", 22: "pipe", 17: "pread64", 21: "access", 25: "mremap"},
    **{28: "madvise", 29: "shmget", 30: "shmat", 41: "socket", 42: "connect", 44: "sendto"},
    **{46: "sendmsg", 49: "bind", 54: "setsockopt", 55: "getsockopt", 56: "clone", 57: "fork"},
    **{58: "vfork", 59: "execve", 62: "kill", 72: "fcntl", 76: "truncate", 80: "chdir"},
    **{82: "rename", 83: "mkdir", 84: "rmdir", 85: "creat", 86: "link", 87: "unlink"},
    **{88: "symlink", 89: "readlink", 90: "chmod", 92: "chown", 101: "ptrace", 103: "syslog"},
    **{105: "setuid", 106: "setgid", 113: "setreuid", 114: "setregid", 116: "setgroups"},
    **{117: "setresuid", 119: "setresgid", 126: "capset", 133: "mknod", 153: "vhangup"},
    **{155: "pivot_root", 157: "prctl", 159: "adjtimex", 161: "chroot", 163: "acct"},
    **{164: "settimeofday", 165: "mount", 166: "umount2", 167: "swapon", 168: "swapoff"},
    **{169: "reboot", 170: "sethostname", 171: "setdomainname", 172: "iopl", 173: "ioperm"},
    **{175: "init_module", 176: "delete_module", 179: "quotactl", 188: "setxattr"},
    **{
        191: "getxattr",
        194: "listxattr",
        195: "llistxattr",
        196: "flistxattr",
        200: "tkill",
        217: "getdents64",
    },
    **{227: "clock_settime", 234: "tgkill", 246: "kexec_load", 248: "add_key", 250: "keyctl"},
    **{
        293: "pipe2",
        257: "openat",
        258: "mkdirat",
        259: "mknodat",
        260: "fchownat",
        262: "newfstatat",
    },
    **{263: "unlinkat", 267: "readlinkat", 268: "fchmodat", 269: "faccessat", 272: "unshare"},
    **{298: "perf_event_open", 300: "fanotify_init", 304: "open_by_handle_at"},
    **{305: "clock_adjtime", 308: "setns", 310: "process_vm_readv", 311: "process_vm_writev"},
    **{312: "kcmp", 313: "finit_module", 316: "renameat2", 317: "seccomp"},
    **{320: "kexec_file_load", 321: "bpf", 322: "execveat", 323: "userfaultfd", 332: "statx"},
    **{424: "pidfd_send_signal", 425: "io_uring_setup", 426: "io_uring_enter", 428: "open_tree"},
    **{429: "move_mount", 430: "fsopen", 431: "fsconfig", 432: "fsmount", 433: "fspick"},
    **{434: "pidfd_open", 435: "clone3", 437: "openat2", 438: "pidfd_getfd", 439: "faccessat2"},
    **{440: "process_madvise", 442: "mount_setattr", 443: "quotactl_fd"},
}
_CALLS = {name: number for number, name in SYSTEM_CALLS.items()}

LIMITS = ("DAC_READ_SEARCH", "FSETID", "IPC_LOCK", "SYS_NICE", "SYS_RESOURCE")
LOOKS = (  # who lacks it sees less
    *("read", "pread64", "getdents64", "stat", "lstat", "newfstatat", "statx", "access"),
    *("faccessat", "faccessat2", "readlink", "readlinkat", "getxattr", "listxattr", "llistxattr"),
    *("flistxattr", "getsockopt"),
)
_OPENS = ("open", "openat", "openat2")
_MEMORY = ("mmap", "mprotect", "munmap", "brk", "mremap", "madvise", "shmget", "shmat", "fork")
_PIPES = ("pipe", "pipe2", "fcntl")  # whether a limit counts
_COMPAT_MEMORY = (2, 11, 45, 90, 91, 125, 163, 190, 192, 219, 358)
ASKING = {  # capability: calls that ask for it in passing
    "DAC_OVERRIDE": ("execve",),  # along PATH
    "NET_ADMIN": _OPENS,  # knobs of /proc/sys/net, to read; and of others the next three
    "SYS_ADMIN": (*_OPENS, *_MEMORY, "vfork", "execve", "execveat", "prctl", "seccomp", *_PIPES),
    "CHECKPOINT_RESTORE": _OPENS,
    "PERFMON": _OPENS,
    "SYSLOG": _OPENS,  # addresses in /proc
}


def _questions() -> dict[int, frozenset[int]]:
    """Capabilities that each call may be refused without having attempted anything."""
    limits = frozenset(NUMBERS[name] for name in LIMITS)
    asked = dict.fromkeys(range(CALLS_MAX), limits)
    asked |= dict.fromkeys((_CALLS[call] for call in LOOKS), frozenset(NUMBERS.values()))
    memory = limits | {NUMBERS["SYS_ADMIN"]}
    asked |= dict.fromkeys((COMPAT + call for call in _COMPAT_MEMORY), memory)
    for name, calls in ASKING.items():
        for call in calls:
            asked[_CALLS[call]] |= {NUMBERS[name]}
    asked[_CALLS["open_by_handle_at"]] -= {NUMBERS["DAC_READ_SEARCH"]}  # a way around all mounts
    return asked


QUESTIONS = _questions()
FIRST, SECOND, IN_ADDRESS = 1, 2, 3  # enum path_argument of bpf/sixfold.h
_PATHS = {
    FIRST: (
        *("open", "execve", "truncate", "chdir", "mkdir", "rmdir", "creat", "unlink", "chmod"),
        *("chown", "mknod", "chroot", "pivot_root", "umount2", "swapon", "swapoff", "setxattr"),
    ),
    SECOND: (
        *("openat", "openat2", "mkdirat", "mknodat", "fchownat", "unlinkat", "fchmodat"),
        *("execveat", "open_tree", "fspick", "mount_setattr", "mount"),
    ),
    IN_ADDRESS: ("connect",),
}
READ_ONLY, NO_PROCESS = 64, 65  # enum met of bpf/sixfold.h: in place of a capability
CHANGES = frozenset(range(CALLS_MAX)) - {_CALLS[call] for call in LOOKS}
OF_PROCESSES = frozenset(
    _CALLS[call]
    for call in (
        *("kill", "tkill", "tgkill", "ptrace", "pidfd_open", "kcmp"),
        *("process_vm_readv", "process_vm_writev"),
    )
)
PATHS = {_CALLS[call]: where for where, calls in _PATHS.items() for call in calls}


@dataclass(frozen=True, slots=True)
class Refusal:
    """As the kernel tells it; ``pod`` is the number of the pod's control group."""

    time_ns: int  # CLOCK_MONOTONIC
    pod: int
    pid: int  # as the host sees it
    uid: int
    capability: int  # or what else it met: READ_ONLY, NO_PROCESS
    system_call: int
    command: str  # first 15 bytes of its name
    path: str  # first 95 bytes of the one that was given; "" for calls without one
    untold: int  # of the same kind, since the last that was told


def capability_name(number: int) -> str:
    return f"CAP_{CAPABILITIES[number]}" if number < len(CAPABILITIES) else f"capability {number}"


def call_name(number: int) -> str:
    """``mount``; one that is not listed keeps its number."""
    if number >= COMPAT:
        return f"32-bit {number - COMPAT}"
    return SYSTEM_CALLS.get(number, str(number))

"""What this host can enforce, found once by trying."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from magistral.errors import UserError
from magistral.verifiers.sandbox import cgroup, seccomp
from magistral.verifiers.sandbox.cgroup import Cgroups
from magistral.verifiers.sandbox.limits import Tier

FIRST_UID = 64_000
N_UIDS = 900
"""chosen: numbers that Debian gives to nobody. Without namespaces each slot has one of these for itself; under bubblewrap its
user is one of the hundred after them: ending a run without namespaces kills every process of its user."""
BOXED_UID = FIRST_UID + N_UIDS
TRY_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    tier: Tier
    bwrap: str
    """Path; empty where bubblewrap is not installed or does not work."""
    root: bool
    """We may give a program a user id of its own; else it has ours outside the box."""
    cgroups: Cgroups | None
    seccomp: bytes
    """Empty where there is no table for this machine."""
    why: str
    """Why the tier is no stronger; empty if it is the strongest."""


@cache
def find_host() -> Host:
    """Raises UserError on a system that is not Linux."""
    return weaker(Tier.FULL)


def weaker(most: Tier) -> Host:
    """The host as it would be if it had no more than the tier `most`: for tests, and for trying what a fall-back holds."""
    if not sys.platform.startswith("linux"):
        raise UserError("code can be run on Linux only: the limits are the kernel's; use a container or a virtual machine")
    order = list(Tier)
    bwrap, why = _find_bwrap() if order.index(most) <= order.index(Tier.BUBBLEWRAP) else ("", "not wanted")
    groups = cgroup.find() if bwrap and most is Tier.FULL else None
    if bwrap and groups is None and most is Tier.FULL:
        why = "no control groups for memory and processes can be made here (try as root, or with a delegated group)"
    if groups is not None:
        atexit.register(groups.remove)
    root = os.geteuid() == 0
    fallback = Tier.UID if root and most is not Tier.RLIMITS else Tier.RLIMITS
    return Host(
        tier=(Tier.FULL if groups else Tier.BUBBLEWRAP) if bwrap else fallback,
        bwrap=bwrap,
        root=root and most is not Tier.RLIMITS,
        cgroups=groups,
        seccomp=seccomp.program() or b"",
        why=why,
    )


def _find_bwrap() -> tuple[str, str]:
    """Its path and "", or "" and why it is of no use."""
    path = shutil.which("bwrap")
    if path is None:
        return "", "bubblewrap (bwrap) is not installed"
    user: dict[str, Any] = {"user": BOXED_UID, "group": BOXED_UID, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        tried = subprocess.run(
            [path, *NAMESPACES, "--ro-bind", "/usr", "/usr", *links(), "/usr/bin/env", "true"],
            capture_output=True, timeout=TRY_LIMIT_S, check=False, stdin=subprocess.DEVNULL, **user,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as e:
        return "", f"bubblewrap does not run: {e}"
    said = tried.stderr.decode(errors="replace").strip().splitlines()
    return (
        (path, "") if tried.returncode == 0 else ("", f"bubblewrap does not work here: {said[-1] if said else tried.returncode}")
    )


NAMESPACES = (
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup-try",
    "--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--die-with-parent", "--new-session", "--clearenv",
    "--hostname", "box", "--proc", "/proc", "--dev", "/dev",
)  # fmt: skip


def links() -> list[str]:
    """/bin, /lib and the like, as this system has them: links into /usr, or folders of their own."""
    arguments: list[str] = []
    for name in ("/bin", "/lib", "/lib64", "/lib32", "/sbin"):
        path = Path(name)
        if path.is_symlink():
            arguments += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            arguments += ["--ro-bind", name, name]
    for name in ("/etc/alternatives", "/etc/ld.so.cache"):
        arguments += ["--ro-bind-try", name, name]
    return arguments


def python() -> str:
    """A Python that a box can run: the system's own, since ours may lie in somebody's home."""
    for path in ("/usr/bin/python3", os.path.realpath(sys.executable)):
        if os.path.exists(path) and os.path.realpath(path).startswith("/usr/"):
            return os.path.realpath(path)
    raise UserError("boxed Python programs need a Python under /usr (apt install python3-minimal, or your system's like)")


def scratch() -> Path:
    """A folder of our own that boxed programs may be shown parts of. Raises UserError if another user has taken its name."""
    path = Path(tempfile.gettempdir()) / f"magistral-{os.geteuid()}"
    path.mkdir(mode=0o755, exist_ok=True)
    facts = path.lstat()
    if path.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise UserError(f"{path} belongs to somebody else or may be written by others: remove it, or set TMPDIR")
    return path


def sweep() -> None:
    """Take away what processes that ended without tidying up left: the second word of a folder's name is its process's id."""
    for folder in [*scratch().glob("box-*-*"), *scratch().glob("work-*-*")]:
        if not Path("/proc", folder.name.split("-")[1]).exists():
            shutil.rmtree(folder, ignore_errors=True)

"""What git says of the project."""

from __future__ import annotations

import getpass
import re
import subprocess
from pathlib import Path

from nbtools.execution.events import Revision

_SEPARATOR = "\x1f"


def revision(root: Path) -> Revision:
    """Return the commit that ``root`` is at, and whether anything differs from it; empty without git."""
    head = _git(root, "log", "-1", f"--format=%H{_SEPARATOR}%s")
    branch = _git(root, "symbolic-ref", "--short", "-q", "HEAD")
    user = _git(root, "config", "user.name") or _login()
    if not head:
        return Revision(branch=branch, user=user)
    commit, _, message = head.partition(_SEPARATOR)
    dirty = bool(_git(root, "status", "--porcelain", "--", "."))
    remote = _without_credentials(_git(root, "config", "remote.origin.url"))
    return Revision(commit, branch or "(detached)", message, dirty, user, remote)


def _git(root: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _without_credentials(url: str) -> str:
    # A password may hold a slash or an @: everything up to the last @ goes.
    return re.sub(r"(?<=://)\S*@", "", url)

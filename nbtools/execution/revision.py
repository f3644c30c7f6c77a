"""What git says of the project."""

from __future__ import annotations

import getpass
import re
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbtools.execution.events import Revision

if TYPE_CHECKING:
    from nbtools.execution.masking import Masking

_SEPARATOR = "\x1f"
#: In an address: of a database, for example, that pipelines.yaml names.
_PASSWORD = re.compile(rb"://[^\s/@:\"']+:[^\s/@\"']+@")


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
    return _run(root, *words).decode("utf-8", "replace").strip()


def _run(root: Path, *words: str) -> bytes:
    """Return what git prints; nothing if it fails, or is not there."""
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def _login() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def _without_credentials(url: str) -> str:
    # A password may hold a slash or an @: everything up to the last @ goes.
    return re.sub(r"(?<=://)\S*@", "", url)


#: Larger files are data, not code; and a patch that is larger is none that anybody reads.
_LARGEST_FILE = 5_000_000
_LARGEST_PATCH = 20_000_000
_SECRET_NAME = re.compile(
    r"(?:^|/)(?:\.env(?:\..*)?|[^/]*\.(?:pem|key|p12|pfx)|id_(?:rsa|dsa|ecdsa|ed25519)|\.netrc|\.pgpass"
    r"|\.?credentials(?:\.[^/]*)?)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Uncommitted:
    """What differs from the commit: a patch that ``git apply`` takes at the top of the repository.

    Parameters
    ----------
    left_out
        Changed files that are not in it, each with the reason.
    """

    patch: bytes = b""
    left_out: tuple[str, ...] = ()


def uncommitted(root: Path, outputs: Collection[str], masking: Masking) -> Uncommitted:
    """Return what differs from the commit in the files that git knows of below ``root``.

    Left out are outputs of stages, large files, and what holds a secret or is named like one.

    Parameters
    ----------
    outputs
        Paths that stages write, relative to ``root``.
    """
    changed = _run(root, "diff", "HEAD", "--name-only", "--no-renames", "--relative", "-z", "--", ".")
    names = [name for name in changed.decode("utf-8", "surrogateescape").split("\0") if name]
    reasons = {name: why_not_kept(root, name, masking) for name in names if not _within(name, outputs)}
    left_out = [f"{name}: {reason}" for name, reason in reasons.items() if reason]
    kept = [name for name, reason in reasons.items() if not reason]
    if not kept:
        return Uncommitted(b"", tuple(left_out))
    without = [f":(exclude,literal){name}" for name in names if name not in set(kept)]
    options = ("--binary", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv")
    prefixes = ("--src-prefix=a/", "--dst-prefix=b/")
    patch = _run(root, "diff", "HEAD", *options, *prefixes, "--", ".", *without)
    if len(patch) > _LARGEST_PATCH:
        return Uncommitted(b"", (*left_out, f"the patch: it has {len(patch):,} bytes"))
    if _holds_secret(patch, masking):
        return Uncommitted(b"", (*left_out, "the patch: it holds a secret"))
    return Uncommitted(patch, tuple(left_out))


def why_not_kept(root: Path, name: str, masking: Masking) -> str:
    """Return why the text of a file is not kept with a run, or an empty string."""
    try:
        if (root / name).stat().st_size > _LARGEST_FILE:
            return "it is too large"
    except OSError:
        return ""  # it was deleted, which is worth keeping
    return "it holds a secret, or is named like a file that does" if is_secret(root, name, masking) else ""


def is_secret(root: Path, name: str, masking: Masking) -> bool:
    """Tell whether a file holds a secret, or is named like one that does; folders and larger files are not read."""
    if _SECRET_NAME.search(name):
        return True
    path = root / name
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
            return False
        return _holds_secret(path.read_bytes(), masking)
    except OSError:
        return False


def _holds_secret(content: bytes, masking: Masking) -> bool:
    if _PASSWORD.search(content):
        return True
    if not masking.reach:
        return False
    text = content.decode("utf-8", "surrogateescape")
    return masking.text(text) != text


def _within(name: str, folders: Collection[str]) -> bool:
    return any(name == folder or name.startswith(f"{folder}/") for folder in folders)

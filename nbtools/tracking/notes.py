"""What MLflow's pages say of a run, in Markdown.

Rules of this file: no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nbtools.execution.events import StageStarted

_REMOTE = re.compile(
    r"(?:https?://(?:[^@/\s]*@)?|(?:ssh://)?git@)(?P<host>[\w.-]+)(?::\d+)?[/:](?P<path>[\w./~-]+?)(?:\.git)?/?"
)
_SHORT = 8


def commit_link(remote: str, commit: str) -> str:
    """Return a link to a commit's page, where its forge has one at the usual place; without credentials.

    >>> commit_link("git@github.com:me/delays.git", "c0ffee1234567890")
    '[c0ffee12](https://github.com/me/delays/commit/c0ffee1234567890)'
    """
    found = _REMOTE.fullmatch(remote)
    if not (found and commit):
        return ""
    return f"[{commit[:_SHORT]}](https://{found['host']}/{found['path']}/commit/{commit})"


def stage_note(started: StageStarted, tags: Mapping[str, str]) -> str:
    """Return the note of a stage's run; ``tags`` are those of the whole run."""
    link = commit_link(tags.get("mlflow.source.git.repoURL", ""), tags.get("mlflow.source.git.commit", ""))
    attempt = f", attempt {started.attempt}" if started.attempt > 1 else ""
    return (
        f"`{started.notebook}` as the stage `{started.stage}`{attempt}{f', at {link}' if link else ''}. "
        f"`nbtools show {started.run}` has the run that it belongs to."
    )

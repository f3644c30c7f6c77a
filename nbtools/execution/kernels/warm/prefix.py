"""The cells above the parameters cell, run once for all variants of a stage.

They cannot depend on params, so every variant would come to the same state by itself. The first variant that
comes runs them in a kernel of their own; then each variant is forked from that kernel, memory and all.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

from nbtools.execution.kernels.session import Session
from nbtools.execution.kernels.warm.client import ForkedClient
from nbtools.execution.kernels.warm.forked import ForkedKernel
from nbtools.execution.kernels.warm.forker import Cold, Forker, ForkJob

_PARAMETERS = "parameters"


class SharedPrefix:
    """A kernel that has run the first cells of a notebook, and what they put out.

    Parameters
    ----------
    note
        Told, in words, why the cells cannot be shared.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._running = threading.Lock()
        self._why_not = ""
        self._sources: list[str] = []
        self._client: _PrefixClient | None = None
        self._forker: Forker | None = None

    @property
    def lost(self) -> bool:
        """Whether the kernel has ended by itself, and with it those that were forked from it."""
        return self._forker is not None and self._forker.lost

    def fork(
        self,
        progress: Any,
        session: Session,
        job: ForkJob,
        first: Callable[[], ForkedKernel],
    ) -> ForkedClient:
        """Return a client for a variant's notebook whose first cells have been run.

        Parameters
        ----------
        progress, session
            Of the variant; its notebook gets what the first cells put out.
        job
            Of the variant's kernel.
        first
            Returns the kernel that runs the first cells, if nobody has done that yet.

        Raises
        ------
        Cold
            If the variant must run all its cells itself.
        """
        cells = progress.nb.cells[: cells_before_params(progress.nb)]
        with self._running:
            if not self._sources:
                self._sources = [cell.source for cell in cells]
                self._run(progress, session, first)
        if self._why_not:
            raise Cold(self._why_not)
        if self._sources != [cell.source for cell in cells]:
            raise Cold("the first cells have changed since")
        assert self._client is not None
        assert self._forker is not None
        kernel = self._forker.fork(job, session.cancelled.is_set)
        return self._client.handed_on(ForkedClient(progress, session, kernel), len(cells))

    def _run(self, progress: Any, session: Session, fork: Callable[[], ForkedKernel]) -> None:
        first = copy.deepcopy(progress.nb)
        first.cells = first.cells[: cells_before_params(first)]
        own = Session(
            source=session.source,
            deadline=session.deadline,
            timeout_s=session.timeout_s,
            cell_timeout_s=session.cell_timeout_s,
            cancelled=session.cancelled,
            late=_no_tracking,
            on_kernel=session.on_kernel,
            off_kernel=session.off_kernel,
            masking=session.masking,
        )
        try:
            client = _PrefixClient(type(progress)(first, own, progress_bar=False), own, fork())
            client.run()
        except Cold as error:
            self._why_not = f"its first cells cannot be shared: {error}"
            if not session.cancelled.is_set():
                self._note(f"{self._why_not}; every variant runs them itself")
            return
        assert client.kernel.control is not None
        self._client = client
        self._forker = Forker(client.kernel.control, "the kernel of the first cells")

    def close(self) -> None:
        """End the kernel of the first cells, and with it every fork that still runs."""
        if self._client is not None:
            self._client.kernel.stop(at_once=True)
            self._client.kernel.close()


class _PrefixClient(ForkedClient):
    """Runs the first cells and leaves the kernel ready to be forked."""

    def run(self) -> None:
        """Run all cells.

        Raises
        ------
        Cold
            If one fails, or the kernel cannot be forked safely afterwards; the kernel has ended then.
        """
        self.reset_execution_trackers()
        self.session.on_kernel(self.kernel)
        try:
            self.language = self._ready()
            self.papermill_execute_cells()
            if self.session.verdict.kind:
                raise Cold(self.session.verdict.message)
            if self.widget_state:
                raise Cold("they make widgets")
            self.kernel.send({"do": "branch"})
            if why := self._answer_to("branch_reply")["refused"]:
                raise Cold(why)
        except BaseException:
            self.kernel.stop(at_once=True)
            self.kernel.close()
            if self.kernel.control:
                self.kernel.control.close()
            raise
        finally:
            # From here on it only forks; an interrupt, or a limit for one variant, is not for it.
            self.session.off_kernel(self.kernel)

    def look_up(self) -> None:
        """Stop when the run is cancelled: a cell may pass over the interrupt."""
        if self.session.cancelled.is_set():
            raise Cold("the run was cancelled")

    def handed_on(self, client: ForkedClient, count: int) -> ForkedClient:
        """Return the client of a variant with the first ``count`` cells done."""
        for cell, done in zip(client.nb.cells[:count], self.nb.cells, strict=True):
            if done.cell_type == "code":
                cell.outputs = copy.deepcopy(done.outputs)
                cell.execution_count = done.execution_count
            cell.metadata.papermill = copy.deepcopy(done.metadata.papermill)
        client.first = count
        client.displayed = copy.deepcopy(self._display_id_map)
        return client


def _no_tracking() -> Mapping[str, str]:
    raise Cold("they start programs, or use MLflow")


def cells_before_params(notebook: Any) -> int:
    """Return how many cells stand above the parameters cell; 0 if there is none."""
    for number, cell in enumerate(notebook.cells):
        if _PARAMETERS in cell.metadata.get("tags", ()):
            return number
    return 0


def may_be_shared(notebook: Any) -> bool:
    """Tell whether a notebook has first cells that are worth sharing, and do not name MLflow."""
    first = [cell for cell in notebook.cells[: cells_before_params(notebook)] if cell.cell_type == "code"]
    sources = [cell.source for cell in first if cell.source.strip()]
    return bool(sources) and not any("mlflow" in source.lower() for source in sources)

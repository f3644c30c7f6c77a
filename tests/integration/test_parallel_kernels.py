from __future__ import annotations

from pathlib import Path

from tests.projects import SmallProject


def test_kernels_that_start_together_do_not_share_sockets(tmp_path: Path) -> None:
    project = SmallProject(tmp_path)
    names = "abcd"
    project.spec(
        "data: {"
        + ", ".join(f"{name}: {name}.txt" for name in names)
        + "}\npipelines:\n  p:\n    stages:\n"
        + "".join(f"      s_{name}: {{notebook: {name}.ipynb, outputs: [{name}]}}\n" for name in names)
    )
    for name in names:
        project.notebook(
            f"{name}.ipynb", f"open({name}, 'w').write('{name}')", params=f"{name} = '{name}.txt'"
        )
    before = set(Path.cwd().iterdir())

    state = project.run(jobs=len(names))

    assert set(project.statuses(state).values()) == {"finished"}
    assert [project.text(f"{name}.txt") for name in names] == list(names)
    assert set(Path.cwd().iterdir()) == before

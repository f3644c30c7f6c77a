"""Documents say what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nbtools import api
from nbtools.cli.main import cli

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_readme_names_every_command(command: str) -> None:
    assert re.search(rf"`nbtools {command}\b", (ROOT / "README.md").read_text()), (
        f"README.md lacks `nbtools {command}`"
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_commands_that_exist(document: Path) -> None:
    named = set(re.findall(r"`nbtools ([a-z]+)", document.read_text()))
    assert named <= set(cli.commands)


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CONTRIBUTING.md"], ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_published_schema_is_the_one_that_the_program_checks() -> None:
    published = json.loads((ROOT / "docs/pipelines.schema.json").read_text())
    assert published == api.schema(), "renew it: nbtools schema > docs/pipelines.schema.json"


@pytest.mark.parametrize("command", [cli, *cli.commands.values()], ids=lambda command: command.name)
def test_every_option_of_every_command_has_help(command: object) -> None:
    options = [item for item in command.params if item.param_type_name == "option"]  # type: ignore[attr-defined]
    assert [option.name for option in options if not option.help] == []

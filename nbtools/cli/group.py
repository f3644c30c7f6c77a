"""A group of commands."""

from __future__ import annotations

from typing import Any

import click

from nbtools.errors import suggest


class SuggestingGroup(click.Group):
    """A group that answers an unknown command with the nearest one."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that is meant."""
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise click.UsageError(
                f"no such command {args[0]!r}; {suggest(args[0], self.commands, 'command')}", ctx
            )
        return super().resolve_command(ctx, args)

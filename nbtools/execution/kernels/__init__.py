"""The processes that execute notebooks."""

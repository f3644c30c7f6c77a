"""Make it happen: run what the plan says, and commit each result exactly once."""

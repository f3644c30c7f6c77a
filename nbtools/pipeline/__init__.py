"""What should happen: the project's stages, their order, and what must run. No I/O except in ``load``."""

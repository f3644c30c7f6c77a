"""``python -m nbtools``."""

from nbtools.cli import main

if __name__ == "__main__":
    main()

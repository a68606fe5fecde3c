"""``python -m tagseg``."""

from tagseg.cli import main

if __name__ == "__main__":
    main()

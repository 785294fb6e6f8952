"""``python -m dnp_guard`` is ``dnp-guard``."""

from dnp_guard.cli import main

if __name__ == "__main__":
    main()

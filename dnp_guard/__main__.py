"""Run ``dnp-guard`` as ``python -m dnp_guard``."""

from dnp_guard.cli import main

if __name__ == "__main__":
    main()

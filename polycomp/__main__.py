"""``python -m polycomp`` is the ``polycomp`` command."""

from polycomp.cli import main

if __name__ == "__main__":
    main()

"""``python -m memoleo`` is the command line."""

from memoleo.cli._main import main

if __name__ == "__main__":
    main()

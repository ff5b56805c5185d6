"""``python -m memoleo`` is the command line."""

from memoleo.cli._start import main

if __name__ == "__main__":
    main()

"""``python -m hcqsfl``: the command line, where its script is not on the path."""

from hcqsfl.cli import main

if __name__ == "__main__":
    main()

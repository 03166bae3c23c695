"""``python -m hcqsfl.cli``."""

from hcqsfl.cli import main

if __name__ == "__main__":
    main()

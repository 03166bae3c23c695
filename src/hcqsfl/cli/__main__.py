"""``python -m hcqsfl.cli``."""

from hcqsfl.cli import main

main()

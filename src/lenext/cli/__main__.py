"""`python -m lenext.cli`."""

from lenext.cli import main

main()

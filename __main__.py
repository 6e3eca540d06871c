"""`python -m pmoe` is the `pmoe` command."""

from .cli import main

main()

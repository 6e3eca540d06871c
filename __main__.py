"""`python -m pmoe` is the `pmoe` command."""

from .cli import main

if __name__ == "__main__":
    main()

"""`python -m finfluence`: the command line."""

from finfluence.cli import main

main()

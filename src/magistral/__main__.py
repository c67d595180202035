"""`python -m magistral` is the command `magistral`."""

from magistral.cli.main import main

main()

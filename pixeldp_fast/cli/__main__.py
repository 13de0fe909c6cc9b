"""`python -m pixeldp_fast.cli`: the command line where the script is not on the path."""

from pixeldp_fast.cli.app import main

main()

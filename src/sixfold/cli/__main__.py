"""``python -m sixfold.cli`` is ``sixfold``."""

from sixfold.cli import main

main()

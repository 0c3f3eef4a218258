"""One line on stderr for each thing worth keeping: the service manager keeps it."""

import sys


def log(text: str) -> None:
    sys.stderr.write(text.replace("\n", " ") + "\n")
    sys.stderr.flush()

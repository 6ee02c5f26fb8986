"""A home directory for users who have none: containers run as numbers that nobody entered.

Prefect and others look for one when they are imported, and end with a RuntimeError without.
"""

import os
import pwd
from pathlib import Path

__all__ = ["give_home"]


def give_home(directory: Path) -> Path | None:
    """Set HOME below `directory` for this process and its children, if the user has no home.

    Returns:
        The home that was given; None if there is one.
    """
    if os.environ.get("HOME") or _known():
        return None
    home = directory.absolute() / "home"
    home.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(home)
    return home


def _known() -> bool:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True

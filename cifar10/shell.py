"""Commands and paths as the user can paste them into the shell in which this command was started."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

KEYWORDS = ("null", "true", "false", "nan", "inf")  # to Hydra, unless they are quoted


def program(name: str) -> str:
    """How the shell starts a program of this environment: by its name if that finds it, else by its path."""
    own = Path(sys.executable).with_name(name)
    if name == "python" and not own.exists():
        own = Path(sys.executable)  # python3
    found = shutil.which(own.name)
    if (found and Path(found).parent == own.parent) or not own.exists():
        return own.name
    return shlex.quote(shown(own))


def shown(path: str | Path) -> str:
    """A path as the user can type it: relative to where the command was started, whatever chdir did."""
    start = HydraConfig.get().runtime.cwd if HydraConfig.initialized() else os.getcwd()
    return os.path.relpath(os.path.abspath(path), start)


def argument(key: str, path: str | Path) -> str:
    """KEY=PATH to paste into a shell, quoted for it and for Hydra."""
    return shlex.quote(f"{key}={quoted(shown(path))}")


def quoted(text: str | Path) -> str:
    """Text as Hydra reads it back: quoted unless it is plain."""
    text = str(text)
    if re.fullmatch(r"[A-Za-z_./][\w./-]*", text, re.ASCII) and text.lower() not in KEYWORDS:
        return text
    return '"' + re.sub(r'(\\*)"', r'\1\1\\"', re.sub(r"(\\+)$", r"\1\1", text)) + '"'

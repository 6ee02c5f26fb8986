"""docs/images/console.svg: what a terminal shows of a run, from the bytes that it was sent.

    python -m deploy.bench.console CONFIG [STAGE]

The run is a real one, on a pseudo-terminal. Of its last picture in which STAGE (train) is at work,
and of the one in which all is done, this makes the figure.
"""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console

WIDTH, HEIGHT = 104, 30
REDRAWN = re.compile(r"(?:\r?\x1b\[(?:1A|2K))+")
FIGURE = Path(__file__).parents[2] / "docs" / "images" / "console.svg"


def sent(command: list[str]) -> str:
    """All that a command sends to a terminal of `WIDTH` columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(WIDTH)}
    run = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    if code := run.wait():
        sys.exit(f"{' '.join(command)} ended with {code}:\n{b''.join(parts).decode()[-2000:]}")
    return b"".join(parts).decode()


def pictures(text: str, stage: str) -> list[str]:
    """The last one with the stage at work, and the last one of all with what follows it."""
    frames = [one for one in REDRAWN.split(text) if "verify" in one]
    busy = [one for one in frames if re.search(rf"▸[^\n]*{stage}", one)]
    if not busy:
        sys.exit(f"{stage} was never seen at work; is it up to date already?")
    return [busy[-1], frames[-1]]


def main() -> None:
    config, *stage = sys.argv[1:]
    text = sent([str(Path(sys.executable).with_name("spherescore")), "run", config])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(f"$ spherescore run {config}")
    for picture in pictures(text, *stage or ["train"]):
        for line in AnsiDecoder().decode(picture.strip("\r\n")):
            console.print(line)
        console.print()
    FIGURE.write_text(console.export_svg(title=f"spherescore run {config}"), encoding="utf-8")


if __name__ == "__main__":
    main()

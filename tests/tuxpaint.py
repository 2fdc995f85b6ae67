"""Real pictures in colour, many with alpha: Debian's tuxpaint-stamps-default."""

from pathlib import Path

STAMPS = Path("/usr/share/tuxpaint/stamps")
# Which Debian's tuxpaint-data, that apt recommends with them, puts beside them
_OTHERS = {f"tux-{name}.png" for name in ("drat", "kiss1", "kiss2", "yay2", "yes1", "yes2")}


def stamp_files() -> list[Path]:
    """All of them, in order, and none but them."""
    return sorted(path for path in STAMPS.rglob("*.png") if path.name not in _OTHERS)

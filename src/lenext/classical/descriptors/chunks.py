"""Images described a few at a time, so that what is between stays in a core's cache."""

from collections.abc import Callable

from lenext.nn import share_out


def in_chunks(work: Callable[[slice], None], images: int, chunk: int) -> None:
    """Does `work` on slices of so many `images`, `chunk` at a time, side by side."""
    share_out(work, [slice(start, min(start + chunk, images)) for start in range(0, images, chunk)])

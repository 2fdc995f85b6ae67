"""How much is let in."""

from dataclasses import dataclass, fields

from lenext.errors import UsageError


@dataclass(frozen=True)
class Limits:
    """What a request may have, and how much the server holds at a time. Raises UsageError for what cannot be."""

    file_bytes: int = 20_000_000
    request_bytes: int = 50_000_000
    pixels: int = 50_000_000  # of a picture, before it is decoded: 150 MB in colour
    seconds: float = 30.0  # to receive a request, and again to answer it
    queue: int = 256  # pictures that wait or are being judged
    batch: int = 32  # pictures that are judged together at most

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value >= (1 if field.type is int else 0.001):
                raise UsageError(f"{field.name}: given {value:g}, accepted: more than 0")
        if self.file_bytes > self.request_bytes:
            raise UsageError(f"file_bytes: given {self.file_bytes:,}, accepted: up to the {self.request_bytes:,} of a "
                             "request")  # fmt: skip

    @property
    def held_bytes(self) -> int:
        """Bytes of all requests together that are in memory at a time."""
        return 4 * self.request_bytes

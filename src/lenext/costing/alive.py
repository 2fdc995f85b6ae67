"""Which memory is alive while a network runs on the meta device, and how much at the worst moment."""

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor

from lenext.costing.rules import storage_of


class Alive:
    """The memory of tensors, from where each is first seen to where it is freed. `most` bytes at one time."""

    def __init__(self, always: Iterable[Tensor]) -> None:
        """Tensors of which there is memory `always`, as parameters, do not count."""
        self.most = 0
        self._bytes = 0
        self._known: dict[int, Any] = {storage_of(tensor): None for tensor in always}

    def follow(self, tensor: Tensor) -> None:
        identity, storage = storage_of(tensor), tensor.untyped_storage()
        if identity in self._known:
            return
        size = storage.nbytes()

        def vanish(_: Any) -> None:
            del self._known[identity]
            self._bytes -= size

        self._known[identity] = weakref.ref(storage, vanish)
        self._bytes += size
        self.most = max(self.most, self._bytes)

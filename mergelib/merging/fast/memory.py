"""What a search computes once and keeps: at most so many bytes of it."""

import threading
from collections.abc import Callable, Hashable

import psutil
import torch


def affordable(device: torch.device) -> int:
    """How many bytes may be kept on a device: half of what is free now.

    The other half is for the answers: key-value caches and activations.
    """
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free // 2
    return int(psutil.virtual_memory().available) // 2


class Kept:
    """Tensors that are computed once, as long as they fit; then anew each time they are needed.

    Attributes:
        limit: how many bytes may be kept.
        size: how many bytes are kept.
        left_out: how many bytes did not fit so far and are computed anew.
    """

    def __init__(self, limit: int) -> None:
        """Keep nothing yet."""
        self.limit = limit
        self.size = 0
        self.left_out = 0
        self._tensors: dict[Hashable, torch.Tensor] = {}
        self._too_large: set[Hashable] = set()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor of a key.

        Args:
            key: what it was computed from.
            compute: computes it; the same for the same key.
        """
        found = self._tensors.get(key)
        if found is not None:
            return found
        tensor = compute()
        with self._lock:
            if self.size + tensor.nbytes <= self.limit:
                if key not in self._tensors:
                    self._tensors[key] = tensor
                    self.size += tensor.nbytes
            elif key not in self._too_large:
                self._too_large.add(key)
                self.left_out += tensor.nbytes
        return tensor

"""What the machine can do."""

import time

import torch


def peak_macs(dtype: torch.dtype, device: torch.device, *, side: int = 1024, repeats: int = 9) -> float:
    """Multiply-adds per second of a square matrix product: the most that a network can hope for.

    The fastest of `repeats` products of side `side`, as other programs can only slow it down; about 0.2 s on a CPU.
    """
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product = left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    del product
    return side**3 / min(seconds)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether it does so in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

"""Shape arithmetic."""


def conv_output(size: int, kernel: int, *, stride: int = 1, padding: int = 0) -> int:
    """Side of a convolution's or pooling's output, in pixels, of an input of side `size`; below 1 it does not fit."""
    return (size + 2 * padding - kernel) // stride + 1

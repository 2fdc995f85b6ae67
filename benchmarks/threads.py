"""LeNet's training steps on one thread and on all, alone and beside another program that does the same.

    python benchmarks/threads.py

Why `lenext.nn.threads_for` gives little work to one thread. Every measurement is a process of its own.
"""

import os
import statistics
import subprocess
import sys
import time

from results import write

SECONDS = 4.0
ALL = os.cpu_count() or 1


def measure(threads: int) -> float:
    """Images per second of forward, backward and optimizer on batches of 128."""
    import torch
    import torch.nn.functional as F

    import lenext

    torch.set_num_threads(threads)
    network = lenext.build("lenet_relu", classes=10, channels=1, size=28).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(128, 28, 28, 1).permute(0, 3, 1, 2)
    labels = torch.randint(0, 10, (128,))
    steps, start = -10, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
        if steps == 0:
            start = time.perf_counter()
    return steps * len(labels) / (time.perf_counter() - start)


def processes(threads: int, number: int) -> list[float]:
    command = [sys.executable, __file__, str(threads)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    return [float(process.communicate()[0]) for process in started]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(measure(int(sys.argv[1])))
        sys.exit()
    rates: dict[str, list[float]] = {}
    for _ in range(3):
        for threads in (1, ALL):
            for number, beside in ((1, "alone"), (2, "beside another")):
                name = f"{threads} thread{'s' * (threads > 1)}, {beside}"
                rates.setdefault(name, []).extend(processes(threads, number))
                print(f"{name:30s} {rates[name][-1]:10,.0f} images/s", flush=True)
    write("threads", {"images_per_second": {name: round(statistics.median(r)) for name, r in rates.items()},
                      "all": {name: [round(rate) for rate in r] for name, r in rates.items()}})  # fmt: skip

"""Which images train, which choose the model, which judge it.

A function of the labels, the images' content, the shares and the seed: neither the files' names nor their order change
it, and adding images moves few of the others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

from lenext.data.sources import SplitName, count
from lenext.errors import DataError, UsageError


def split(
    labels: Sequence[str],
    sha256: Sequence[str],
    groups: Sequence[str] | None,
    *,
    val: float,
    test: float,
    seed: int,
) -> list[SplitName]:
    """For each image "train", "val" or "test", with the shares `val` and `test` held out of every class.

    Images with equal bytes (`sha256`) or of one group (`groups`, "" is none) stay together. Every class has at least
    one image in each part whose share is not 0. Raises DataError where a class has too few distinct images or groups
    for that, UsageError where the shares leave nothing to train on.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise UsageError(f"data.val={val} and data.test={test}: expected shares from 0 that together stay below 1")
    shares: dict[SplitName, float] = {"test": test, "val": val}
    shares = {part: share for part, share in shares.items() if share}
    totals = Counter(labels)
    held: Counter[tuple[SplitName, str]] = Counter()  # images of (part, class) so far
    result: list[SplitName] = ["train"] * len(labels)

    def assign(unit: Sequence[int], part: SplitName) -> None:
        for i in unit:
            result[i] = part
            held[part, labels[i]] += 1

    # A unit goes by the rarest of its classes, and rare classes choose first, while all is free.
    rank = {label: place for place, label in enumerate(sorted(totals, key=lambda label: (totals[label], label)))}
    by_class: dict[str, list[list[int]]] = {label: [] for label in rank}
    for unit in _units(sha256, groups):
        by_class[min((labels[i] for i in unit), key=rank.__getitem__)].append(unit)
    for label, free in by_class.items():
        free.sort(key=lambda unit: _lot(seed, min(sha256[i] for i in unit)))
        lacking = [part for part in (*shares, "train") if not held[part, label]]
        if len(free) < len(lacking):
            raise DataError(
                f"class {label!r} has {count(totals[label], 'image')}, of which {len(free)} can be parted (duplicates "
                f"{'and groups ' if groups else ''}stay together); it takes {len(shares) + 1}, one each for "
                f"{', '.join((*shares, 'train'))}"
            )
        for part, share in shares.items():
            lacking = [other for other in lacking if other != part]
            wanted = max(1, round(share * totals[label]))
            kept: list[list[int]] = []
            for place, unit in enumerate(free):
                to_spare = len(kept) + len(free) - place > len(lacking)
                if to_spare and held[part, label] + sum(labels[i] == label for i in unit) <= wanted:
                    assign(unit, part)
                else:
                    kept.append(unit)
            if not held[part, label]:  # every unit is larger than the share
                smallest = min(kept, key=len)
                assign(smallest, part)
                kept.remove(smallest)
            free = kept
        for unit in free:
            assign(unit, "train")
    return result


def folds(
    labels: Sequence[str], sha256: Sequence[str], groups: Sequence[str] | None, *, number: int, seed: int
) -> list[int]:
    """For each image its fold, 0 to `number` - 1, for cross-validation: of every class about as many in each.

    What stays together in `split` does so here.
    """
    result = [0] * len(labels)
    held: Counter[tuple[int, str]] = Counter()  # images of (fold, class) so far
    sizes: Counter[int] = Counter()
    units = _units(sha256, groups)
    # The largest first, which are the hardest to place
    for unit in sorted(units, key=lambda unit: (-len(unit), _lot(seed, min(sha256[i] for i in unit)))):
        label = min(labels[i] for i in unit)
        fold = min(range(number), key=lambda fold: (held[fold, label], sizes[fold]))
        for i in unit:
            result[i] = fold
            held[fold, labels[i]] += 1
        sizes[fold] += len(unit)
    return result


def _lot(seed: int, sha256: str) -> bytes:
    """What decides the order in which images are drawn."""
    return hashlib.sha256(f"{seed}:{sha256}".encode()).digest()


def _units(sha256: Sequence[str], groups: Sequence[str] | None) -> list[list[int]]:
    """The indices in sets that must stay together: linked by equal content or group, directly or through others."""
    root = list(range(len(sha256)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    keys: list[Sequence[str]] = [sha256, groups] if groups else [sha256]
    for relation in keys:
        first: dict[str, int] = {}
        for i, key in enumerate(relation):
            if key:
                root[find(i)] = find(first.setdefault(key, i))
    units: dict[int, list[int]] = defaultdict(list)
    for i in range(len(root)):
        units[find(i)].append(i)
    return list(units.values())

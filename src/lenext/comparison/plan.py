"""Sharing out a comparison's time: which rung gets how much of it, and for how many epochs that is foretold to do.

The rule, in full. A classical rung gets what it is foretold to need, the upper end of it, and all of them together at
most half of the time where there are networks, too. Of the rest a network whose recipe fits into half of an equal share
gets all of its epochs; the others share what is left so that each goes through the training images equally often, but
none more often than its recipe asks for: what a cheap one does not need goes to the dearer ones. Where every network
has its recipe's epochs and time is left, all go on equally, up to three times these.

What does not fit is left out by name: the dearest network while they could not do an epoch each, the dearest classical
rung while they would get less than a quarter of what they need. Of further seeds, one after the other is added from the
cheapest rung up, while each network keeps half of the epochs that it would have had without.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lenext.costing import Amount
from lenext.report import text

CLASSICAL_SHARE = 0.5  # of the time, at most, where there are networks
LEAST_SHARE = 0.25  # of what a classical rung needs
LEAST_EPOCHS = 1.0
ENOUGH_EPOCHS = 8.0  # that each network keeps if a rung that is not asked for by name is to join
SEEDS_KEEP = 0.5  # of its epochs, that a network keeps when further seeds are added
SERVED_SHARE = 0.5  # of an equal share of the networks' time: what takes no more gets its recipe's epochs
STRETCH = 3.0  # times the recipe's epochs, at most


@dataclass(frozen=True)
class Need:
    """What a rung is foretold to need, for one seed."""

    model: str
    once: Amount  # seconds of a classical rung; of a network those that do not depend on epochs
    epoch: Amount | None = None  # seconds; None: a classical rung
    epochs: float = 0.0  # the recipe's
    optional: bool = False  # joins only where the others keep enough

    def seconds(self, epochs: float | None) -> Amount:
        """One seed of it."""
        return self.once if self.epoch is None else self.once + self.epoch * (epochs or 0.0)


@dataclass(frozen=True)
class Share:
    """What a rung gets of the time, for all of its `seeds` together; or the reason why nothing."""

    model: str
    seeds: int = 0
    epochs: float | None = None  # of each seed; None: a classical rung
    seconds: float = 0.0
    predicted: Amount | None = None
    reason: str | None = None

    @property
    def included(self) -> bool:
        return self.reason is None

    def row(self) -> dict[str, Any]:
        """As in comparison.json."""
        return {**asdict(self), "included": self.included}


def first_plan(needs: Sequence[Need], seconds: float, seeds: int) -> list[Share]:
    """The plan before anything has run: one seed of every rung, then of up to `seeds` those that there is time for."""
    shares = share_out([(need, 1) for need in needs], seconds)
    taken = {share.model: share for share in shares if share.included}
    least = {name: SEEDS_KEEP * min(share.epochs or 0.0, need.epochs) for need in needs
             for name in [need.model] if (share := taken.get(name))}  # fmt: skip
    chosen = [need for need in needs if need.model in taken]
    counts = {need.model: 1 for need in chosen}
    for _ in range(seeds - 1):
        for need in sorted(chosen, key=lambda need: need.seconds(need.epochs).value):
            more = counts | {need.model: counts[need.model] + 1}
            tried = share_out([(one, more[one.model]) for one in chosen], seconds)
            if not _keeps(tried, chosen, more, least):
                break
            counts, shares = more, [*tried, *(share for share in shares if not share.included)]
    order = [need.model for need in needs]
    return sorted(shares, key=lambda share: order.index(share.model))


def share_out(wanted: Sequence[tuple[Need, int]], seconds: float) -> list[Share]:
    """What each rung gets of `seconds`, with so many seeds to run of each."""
    reasons: dict[str, str] = {}
    classical = [(need, n) for need, n in wanted if need.epoch is None]
    networks = [(need, n) for need, n in wanted if need.epoch is not None]
    room = seconds * (CLASSICAL_SHARE if networks else 1.0)
    while classical and (total := _upper(classical)) * LEAST_SHARE > room:
        dearest = max(classical, key=lambda one: one[0].once.high)
        gets = max(0.0, room) / total * dearest[0].once.high
        reasons[dearest[0].model] = f"needs {_time(dearest[0].once.value)}, of which {_time(gets)} would be left for it"
        classical.remove(dearest)
    scale = min(1.0, room / _upper(classical)) if classical else 0.0
    left = seconds - scale * _upper(classical)

    while optional := [one for one in networks if one[0].optional]:
        if _level(networks, left) >= ENOUGH_EPOCHS:
            break
        reasons[optional[-1][0].model] = (
            f"the others would get fewer than {ENOUGH_EPOCHS:g} epochs; --models asks for it by name"
        )
        networks.remove(optional[-1])
    while networks and (level := _level(networks, left)) < LEAST_EPOCHS:
        dearest = max(networks, key=lambda one: one[0].seconds(1.0).value)
        gets = dearest[0].seconds(max(0.0, level)).value
        reasons[dearest[0].model] = f"an epoch takes {_time(dearest[0].seconds(1.0).value)}, its share is {_time(gets)}"
        networks.remove(dearest)
    level, stretch, served = _level(networks, left), 1.0, _served(networks, left)
    if level == float("inf"):
        level, stretch, served = _level(networks, left, STRETCH), STRETCH, set()

    kept = {need.model for need, _ in (*classical, *networks)}
    return [
        _share(need, n, level=level, stretch=stretch, scale=scale, served=served)
        if need.model in kept
        else Share(need.model, reason=reasons[need.model])
        for need, n in wanted
    ]


def _share(need: Need, n: int, *, level: float, stretch: float, scale: float, served: set[str]) -> Share:
    if need.epoch is None:
        return Share(need.model, n, None, n * scale * need.once.high, need.once * n)
    epochs = need.epochs if need.model in served else min(level, stretch * need.epochs)
    predicted = need.seconds(epochs) * n
    return Share(need.model, n, epochs, predicted.value, predicted)


def _keeps(
    shares: Iterable[Share], needs: Sequence[Need], seeds: Mapping[str, int], least: Mapping[str, float]
) -> bool:
    """Whether the further seeds leave every rung in, every network half of its epochs, and classical rungs all."""
    for share, need in zip(shares, needs, strict=True):
        if not share.included:
            return False
        if need.epoch is not None and (share.epochs or 0.0) < max(LEAST_EPOCHS, least[need.model]):
            return False
        if need.epoch is None and seeds[need.model] > 1 and share.seconds < 0.999 * need.once.high * share.seeds:
            return False
    return True


def _upper(classical: Iterable[tuple[Need, int]]) -> float:
    return sum(n * need.once.high for need, n in classical)


def _served(networks: Sequence[tuple[Need, int]], seconds: float) -> set[str]:
    """The networks whose epochs take no more than a part of an equal share of `seconds`: they get them all."""
    left = seconds - sum(n * need.once.value for need, n in networks)
    most = SERVED_SHARE * left / max(1, sum(n for _, n in networks))
    return {need.model for need, _ in networks if need.epoch and need.epoch.value * need.epochs <= most}


def _level(networks: Sequence[tuple[Need, int]], seconds: float, stretch: float = 1.0) -> float:
    """The epochs that each network gets of `seconds`, but for those that have enough; infinite where all have.

    Below 0 where the time does not even suffice for what does not depend on epochs.
    """
    left = seconds - sum(n * need.once.value for need, n in networks)
    if stretch == 1.0:
        served = _served(networks, seconds)
        left -= sum(n * need.epoch.value * need.epochs for need, n in networks if need.epoch and need.model in served)
        networks = [(need, n) for need, n in networks if need.model not in served]
    pace = sum(n * need.epoch.value for need, n in networks if need.epoch)  # seconds of an epoch of those not yet done
    level = 0.0
    for need, n in sorted(networks, key=lambda one: one[0].epochs):
        assert need.epoch is not None
        if (until := stretch * need.epochs - level) * pace > left:
            return level + left / pace
        left -= until * pace
        level += until
        pace -= n * need.epoch.value
    return float("inf")


def _time(duration: float) -> str:
    return text.seconds(round(duration, 1))

"""Sharing out a comparison's time: which rung gets how much of it, and for how many epochs that is foretold to do.

The rule, in full. A classical rung gets what it is foretold to need, the upper end of it, and all of them together at
most half of the time where there are networks, too. Of the rest a network whose recipe fits into half of an equal share
gets all of its epochs; the others share what is left so that each goes through the training images equally often, but
none more often than its recipe asks for: what a cheap one does not need goes to the dearer ones. Where every network
has its recipe's epochs and time is left, all go on equally, up to three times these.

What does not fit is left out by name: the dearest network while they could not do an epoch each, the dearest classical
rung while they would get less than a quarter of what they need. Of further seeds, one after the other is added from the
cheapest rung up, while each network keeps half of the epochs that it would have had without.

Where several lanes run a rung each at the same time, their time together is shared out in the same way, but no run gets
more than a lane has, and as much less is shared out as it takes for the dearest run to be begun first, each in the lane
that is free first, and all to end in time.
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
HALVINGS = 10  # of what is looked through for the most that several lanes can be given
ROUNDING = 1e-9  # of all seconds


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

    def most_epochs(self, seconds: float, stretch: float) -> float:
        """Of a network, `stretch` times the recipe's, or as many as so many seconds hold."""
        assert self.epoch is not None
        return min(stretch * self.epochs, max(0.0, seconds - self.once.value) / self.epoch.value)


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


def first_plan(needs: Sequence[Need], seconds: float, seeds: int, lanes: int = 1) -> list[Share]:
    """The plan before anything has run: one seed of every rung, then of up to `seeds` those that there is time for."""
    free = [0.0] * lanes
    shares = share_out([(need, 1) for need in needs], seconds, free)
    taken = {share.model: share for share in shares if share.included}
    least = {name: SEEDS_KEEP * min(share.epochs or 0.0, need.epochs) for need in needs
             for name in [need.model] if (share := taken.get(name))}  # fmt: skip
    chosen = [need for need in needs if need.model in taken]
    counts = {need.model: 1 for need in chosen}
    for _ in range(seeds - 1):
        for need in sorted(chosen, key=lambda need: need.seconds(need.epochs).value):
            more = counts | {need.model: counts[need.model] + 1}
            tried = share_out([(one, more[one.model]) for one in chosen], seconds, free)
            if not _keeps(tried, chosen, more, least):
                break
            counts, shares = more, [*tried, *(share for share in shares if not share.included)]
    order = [need.model for need in needs]
    return sorted(shares, key=lambda share: order.index(share.model))


def share_out(wanted: Sequence[tuple[Need, int]], seconds: float, busy: Sequence[float] = (0.0,)) -> list[Share]:
    """What each rung gets of `seconds`, with so many seeds to run of each.

    `busy`: the seconds after which each lane is free to begin a run; by default there is one, free at once.
    """
    # What the lanes have that are free the soonest, of no more of them than there are runs
    runs = max(1, sum(n for _, n in wanted))
    free = sorted((max(0.0, seconds - until) for until in busy), reverse=True)[:runs]
    least, most = 0.0, sum(free)
    shares = _divided(wanted, most, free[0])
    if _end_in_time(shares, free):
        return shares
    for _ in range(HALVINGS):
        middle = (least + most) / 2
        tried = _divided(wanted, middle, free[0])
        if _end_in_time(tried, free):
            least, shares = middle, tried
        else:
            most = middle
    return shares


def _end_in_time(shares: Iterable[Share], free: Iterable[float]) -> bool:
    """Whether no lane gets more to do than it has seconds, the dearest run first and each where most are left."""
    left = list(free)
    slack = ROUNDING * sum(left)
    for seconds in sorted((share.seconds / share.seeds for share in shares for _ in range(share.seeds)), reverse=True):
        lane = left.index(max(left))
        left[lane] -= seconds
        if left[lane] < -slack:
            return False
    return True


def _divided(wanted: Sequence[tuple[Need, int]], seconds: float, longest: float) -> list[Share]:
    """What each rung gets of `seconds`, no run of it more than the `longest` lane has."""
    reasons: dict[str, str] = {}
    classical = [(need, n) for need, n in wanted if need.epoch is None]
    networks = [(need, n) for need, n in wanted if need.epoch is not None]
    room = seconds * (CLASSICAL_SHARE if networks else 1.0)
    while classical:
        dearest = max(classical, key=lambda one: one[0].once.high)
        total, needs = _upper(classical), dearest[0].once.high
        if LEAST_SHARE * total <= room and LEAST_SHARE * needs <= longest:
            break
        gets = min(max(0.0, room) / total * needs, longest)
        reasons[dearest[0].model] = f"needs {_time(dearest[0].once.value)}, of which {_time(gets)} would be left for it"
        classical.remove(dearest)
    scale = min(1.0, room / _upper(classical)) if classical else 0.0
    left = seconds - scale * _upper(classical)

    while optional := [one for one in networks if one[0].optional]:
        if _level(networks, left, longest) >= ENOUGH_EPOCHS:
            break
        reasons[optional[-1][0].model] = (
            f"the others would get fewer than {ENOUGH_EPOCHS:g} epochs; --models asks for it by name"
        )
        networks.remove(optional[-1])
    while networks:
        level = _level(networks, left, longest)
        dearest = max(networks, key=lambda one: one[0].seconds(1.0).value)
        needs = dearest[0].seconds(LEAST_EPOCHS).value
        if level >= LEAST_EPOCHS and needs <= longest:
            break
        gets = min(dearest[0].seconds(max(0.0, level)).value, longest)
        reasons[dearest[0].model] = f"an epoch takes {_time(needs)}, its share is {_time(gets)}"
        networks.remove(dearest)
    level, stretch, served = _level(networks, left, longest), 1.0, _served(networks, left)
    if level == float("inf"):
        level, stretch, served = _level(networks, left, longest, STRETCH), STRETCH, set()

    kept = {need.model for need, _ in (*classical, *networks)}
    return [
        _share(need, n, level=level, stretch=stretch, scale=scale, served=served, longest=longest)
        if need.model in kept
        else Share(need.model, reason=reasons[need.model])
        for need, n in wanted
    ]


def _share(
    need: Need, n: int, *, level: float, stretch: float, scale: float, served: set[str], longest: float
) -> Share:
    if need.epoch is None:
        return Share(need.model, n, None, n * min(scale * need.once.high, longest), need.once * n)
    epochs = need.epochs if need.model in served else min(level, need.most_epochs(longest, stretch))
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


def _level(networks: Sequence[tuple[Need, int]], seconds: float, longest: float, stretch: float = 1.0) -> float:
    """The epochs that each network gets of `seconds`, but for those that have enough; infinite where all have.

    Below 0 where the time does not even suffice for what does not depend on epochs. Enough is also what takes the
    `longest` lane's time.
    """
    left = seconds - sum(n * need.once.value for need, n in networks)
    if stretch == 1.0:
        served = _served(networks, seconds)
        left -= sum(n * need.epoch.value * need.epochs for need, n in networks if need.epoch and need.model in served)
        networks = [(need, n) for need, n in networks if need.model not in served]
    pace = sum(n * need.epoch.value for need, n in networks if need.epoch)  # seconds of an epoch of those not yet done
    level = 0.0
    for need, n in sorted(networks, key=lambda one: one[0].most_epochs(longest, stretch)):
        assert need.epoch is not None
        if (until := need.most_epochs(longest, stretch) - level) * pace > left:
            return level + left / pace
        left -= until * pace
        level += until
        pace -= n * need.epoch.value
    return float("inf")


def _time(duration: float) -> str:
    return text.seconds(round(duration, 1))

"""The ladder: many runs on one split, inside one budget, to one verdict."""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lenext.comparison import outcome
from lenext.comparison.asked import FILE, OPTIONAL, Asked, multiply_adds
from lenext.comparison.lanes import InTurn, Lanes, OpenLanes
from lenext.comparison.outcome import Finished
from lenext.comparison.plan import Need, Share, first_plan, share_out
from lenext.comparison.verdict import decide
from lenext.costing import Amount
from lenext.data import Dataset
from lenext.errors import DataError, Interrupted, LenextError, UsageError
from lenext.foresight import Foresight, foresee, measured_machine
from lenext.ladder import LADDER, rung
from lenext.record import Record, environment, write_whole
from lenext.report import report, text
from lenext.run import Observer, complete, next_command, prepare_for, slug, write_array
from lenext.spec import Run, parse_amount, parse_seconds
from lenext.training.budget import RECORD_SECONDS, REPORT_SECONDS, Clock
from lenext.training.distributed import joined

PAGE_SECONDS = REPORT_SECONDS - RECORD_SECONDS
CONCLUSION_SECONDS = 5.0  # the comparison's own report, and what is computed for it; of a short budget a fifth
PROFILE_SECONDS = 30.0  # measuring the machine, once
ASIDE_SHARE = 0.05  # of the budget, at most, goes into each of these: the runs' own pages, measuring the machine
GUARD = 2.0  # times its share, after which such a run is cut short all the same
SURE_SHARE = 0.2  # of the time that is left: what is foretold to take no more is given its epochs, not a time


@dataclass(frozen=True)
class Comparison:
    """What a comparison made: a row per rung (see `comparison.json`), the verdict, and the winner's bundle.

    `winner` and `bundle` are None where no rung keeps to the constraints.
    """

    root: Path
    report: Path
    bundle: Path | None
    winner: str | None
    best: str | None
    verdict: str
    seconds: float
    plan: list[dict[str, Any]]
    rungs: list[dict[str, Any]]
    pairs: list[dict[str, Any]]


def compare(
    data: str = "",
    *,
    models: Sequence[str] | None = None,
    epochs: float | None = None,
    budget: float | str | None = None,
    seed: int = 0,
    seeds: int = 1,
    max_latency: float | None = None,
    max_size: float | str | None = None,
    max_macs: float | str | None = None,
    settings: Mapping[str, Any] | None = None,
    out: Path | str | None = None,
    lanes: Lanes | None = None,
    observer: Observer | None = None,
    started: float | None = None,
) -> Comparison:
    """Trains `models` on one split of `data`, says which one is worth its cost, and bundles it.

    A `budget` (seconds, or as ``"10m"``) is for all together and is shared out before it begins, and anew after every
    run (see `lenext.comparison.plan`); without one each rung trains as its recipe says, or for `epochs`. A name may
    have a width, as ``resnet9@0.5``, a number of networks that vote, as ``resnet9@0.5x3``, and mirror its images, as
    ``resnet9+flip``. Each rung is trained with up to `seeds` seeds, from `seed` on. The most accurate on the validation
    images is the best; the winner is the cheapest that is not significantly worse, of those that predict an image in
    `max_latency` milliseconds, are no larger than `max_size` (bytes, or as ``"5MB"``) and take no more than `max_macs`
    multiply-adds (or as ``"100M"``). The test images only judge. `settings` are nested, as in a YAML file; each rung
    takes those that it reads. A rung that fails is reported, not fatal. Rungs run one after another in this process, or
    several at a time in `lanes`, such as ``lenext.cluster.Lanes(2)``.

    Where `out` holds the same comparison already, stopped or finished, it is continued: what has finished is not run
    again. Raises the errors of `lenext.errors`; UsageError for an unknown model, or where `out` holds another
    comparison; Interrupted where it is stopped.
    """
    asked = Asked(
        data=data,
        models=None if models is None else tuple(dict.fromkeys(models)),
        epochs=epochs,
        budget=parse_seconds(budget),
        seed=seed,
        seeds=seeds,
        max_latency_ms=max_latency,
        max_size_bytes=parse_amount(max_size, unit="B"),
        max_macs=parse_amount(max_macs),
        settings=settings or {},
    )
    return _go(asked, Path(out) if out else None, lanes, Clock(started), observer or Observer())


def resume(root: Path, *, observer: Observer | None = None) -> Comparison:
    """Continues the comparison in `root`. Raises UsageError where `root` is none."""
    clock = Clock()
    asked = Asked.read(Record.open(root, FILE).path(FILE))
    return _go(asked, root, None, clock, observer or Observer())


def _go(asked: Asked, out: Path | None, lanes: Lanes | None, clock: Clock, observer: Observer) -> Comparison:
    with joined() as world:
        if world.size > 1:
            raise UsageError(f"a comparison is made by one process: given {world.size} workers, accepted: 1")
    if not asked.names:
        raise UsageError(f"no models given; accepted: {', '.join(LADDER)}")
    if asked.seeds < 1:
        raise UsageError(f"seeds: given {asked.seeds}, accepted: 1 or more")
    _ = asked.constraints  # in their ranges
    specs = {name: asked.spec(name) for name in asked.names}
    source = specs[asked.names[0]].data
    asked = replace(asked, data=source.source)
    if out and (out / FILE).is_file():
        record = Record.open(out, FILE)
        Asked.read(record.path(FILE)).must_be(asked, out)
    else:
        record = Record.create(out, f"compare-{slug(source.source)}")
    try:
        images = prepare_for(record, source, observer)
        alone = contextlib.nullcontext(InTurn(images, observer))
        with lanes.opened(source, images, record.root, observer) if lanes else alone as opened:
            return _Course(record, asked, specs, images, opened, clock, observer).go()
    except Interrupted as error:
        reason = str(error).split(";")[0]
    except KeyboardInterrupt:
        reason = "interrupted"
    finally:
        with contextlib.suppress(OSError):  # what has files in it stays
            record.root.rmdir()
    begun = record.path(FILE).is_file()
    raise Interrupted(reason + (f"; `lenext resume {record.root}` continues the comparison" if begun else ""))


@dataclass(frozen=True)
class _UnderWay:
    """A run that has begun and not ended; seconds on the comparison's clock."""

    name: str
    seed: int
    began: float
    until: float  # foretold, where there is a budget


class _Course:
    """A comparison under way."""

    def __init__(
        self,
        record: Record,
        asked: Asked,
        specs: dict[str, Run],
        images: Dataset,
        lanes: OpenLanes,
        clock: Clock,
        observer: Observer,
    ) -> None:
        self.record, self.asked, self.specs, self.images = record, asked, specs, images
        self.lanes, self.clock, self.observer = lanes, clock, observer
        self.under_way: dict[Path, _UnderWay] = {}  # by their folders
        self.took: float | None = None  # seconds, where it had come to its end before
        self.finished: dict[str, dict[int, Finished]] = {name: {} for name in specs}  # by the number of their seed
        self.errors: dict[str, str] = {}
        self.plan: list[Share] = []
        self.needs: dict[str, Need] = {}
        self.predicted: dict[str, dict[str, float]] = {}

    # ---- from the beginning to the end ----

    def go(self) -> Comparison:
        before = self.record.read_json("comparison.json")
        if before is not None:
            self._take_up(before)
        self._foresee()
        if before is None:
            self.plan = self._first_plan()
        self.needs = {name: replace(need, optional=False) for name, need in self.needs.items()}
        if not any(share.included for share in self.plan):
            raise UsageError(f"no rung can be compared; {self.plan[0].model}: {self.plan[0].reason}")
        self._note()
        self.record.write_text(FILE, self.asked.to_yaml())
        if self.asked.budget is not None:
            self.observer.planned([share.row() for share in self.plan])
        while self._begin_another() or self._end_another():
            pass
        if not any(self.finished.values()):
            first = next(iter(self.errors.values()), self.plan[0].reason)
            raise LenextError(f"no model could be trained; the first said: {first}")
        return self._conclude()

    def _take_up(self, before: dict[str, Any]) -> None:
        """Where an earlier call stopped."""
        if before["fingerprint"] != self.images.fingerprint:
            raise DataError(
                f"{self.asked.data}: the images are not those that {self.record.root} compares on; start anew"
            )
        for row in before["plan"]:
            self.plan.append(
                Share(
                    row["model"], row["seeds"], row["epochs"], row["seconds"], _amount(row["predicted"]), row["reason"]
                )
            )
        seconds = before["seconds"]
        self.took = seconds if "verdict" in before else None
        for row in before["rungs"]:
            if row["error"] is not None:
                self.errors[row["model"]] = row["error"]
            if row["predicted_seconds"] is not None:
                self.predicted[row["model"]] = row["predicted_seconds"]
        known = {folder for row in before["rungs"] for folder in row["runs"]}
        for share in self.plan:
            if share.model in self.errors:
                continue
            for seed in range(share.seeds):
                if not (left := Finished.read(self._folder(share.model, seed))):
                    continue
                self.finished[share.model][seed] = left
                complete(left.root, page=self._pages)
                if left.root.name not in known:  # it ended just before the comparison did
                    seconds += left.summary["seconds"]
        self.clock.add(seconds)

    # ---- time ----

    def _foresee(self) -> None:
        """What each rung is foretold to need, where there is a budget to share out."""
        if self.asked.budget is None:
            return
        if ASIDE_SHARE * self.asked.budget >= PROFILE_SECONDS:
            measured_machine(self.observer.stage)  # else, where it is not known yet, a rough one does
        for name, spec in self.specs.items():
            try:
                foreseen = foresee(spec, self.images, cores=self.lanes.cores, page=self._pages)
            except LenextError as error:  # which the run itself would end with
                self.errors[name] = str(error)
                continue
            self.needs[name] = self._need(name, spec, foreseen)

    def _need(self, name: str, spec: Run, foreseen: Foresight) -> Need:
        if foreseen.fit_seconds is not None:
            return Need(name, foreseen.fit_seconds + foreseen.fixed_seconds)
        assert spec.recipe is not None
        optional = self.asked.models is None and name in OPTIONAL
        return Need(name, foreseen.fixed_seconds, foreseen.epoch_seconds, spec.recipe.epochs, optional)

    @property
    def _pages(self) -> bool:
        """Whether each run writes its own page: with a short budget there is no time for it."""
        budget, runs = self.asked.budget, len(self.specs) * self.asked.seeds
        return budget is None or PAGE_SECONDS * runs <= ASIDE_SHARE * budget

    @property
    def _left(self) -> float:
        assert self.asked.budget is not None
        return self.asked.budget - self.clock.seconds() - min(CONCLUSION_SECONDS, 0.2 * self.asked.budget)

    @property
    def _busy(self) -> list[float]:
        """The seconds after which each lane is free, as far as can be foretold."""
        now, free = self.clock.seconds(), self.lanes.number - len(self.under_way)
        return [max(0.0, run.until - now) for run in self.under_way.values()] + [0.0] * free

    def _first_plan(self) -> list[Share]:
        """Of every rung asked for; a rung that takes too many multiply-adds need not be trained."""
        reasons = {name: reason for name in self.specs if (reason := self._too_dear(name))}
        planned: dict[str, Share]
        if self.asked.budget is None:
            planned = {name: Share(name, self.asked.seeds, self._epochs(name)) for name in self.specs}
        else:
            needs = [need for name, need in self.needs.items() if name not in reasons]
            planned = {
                share.model: share for share in first_plan(needs, self._left, self.asked.seeds, self.lanes.number)
            }
            planned |= {name: Share(name, 1) for name in self.errors}
        planned |= {name: Share(name, reason=reason) for name, reason in reasons.items()}
        return [planned[name] for name in self.specs]

    def _epochs(self, name: str) -> float | None:
        recipe = self.specs[name].recipe
        return None if recipe is None else self.asked.epochs or recipe.epochs

    def _too_dear(self, name: str) -> str | None:
        """The reason not to train it, where its multiply-adds are more than may be."""
        most = self.asked.max_macs
        if most is None:
            return None
        try:
            macs = multiply_adds(self.specs[name], self.images)
        except LenextError:  # the run will say so
            return None
        return f"{text.compact(macs)} multiply-adds, more than {text.compact(most)}" if macs > most else None

    def _todo(self) -> list[tuple[str, int]]:
        """The runs to begin, as rung and number of the seed: the first seed of every rung, then the second.

        With a budget classical rungs come first, as their time is the least certain, then networks, the dearer the
        later: what the others leave over goes to the last.
        """
        left = [
            (share.model, seed)
            for share in self.plan
            if share.included and share.model not in self.errors
            for seed in range(share.seeds)
            if seed not in self.finished[share.model] and self._folder(share.model, seed) not in self.under_way
        ]
        order = list(self.specs)
        if self.asked.budget is not None:
            order.sort(key=lambda name: self._dearness(name))
        return sorted(left, key=lambda one: (one[1], order.index(one[0])))

    def _dearness(self, name: str) -> tuple[bool, float]:
        if (need := self.needs.get(name)) is None:
            return False, 0.0
        return need.epoch is not None, (need.epoch or need.once).value

    def _share_out(self, todo: Sequence[tuple[str, int]]) -> dict[str, Share]:
        """What is really left, among the runs that are left; nothing without a budget."""
        if self.asked.budget is None:
            return {}
        return {share.model: share for share in share_out(self._wanted(todo), self._left, self._busy)}

    def _wanted(self, todo: Sequence[tuple[str, int]]) -> list[tuple[Need, int]]:
        counts = {name: sum(one == name for one, _ in todo) for name in self.needs}
        return [(need, counts[name]) for name, need in self.needs.items() if counts[name]]

    def _let_join(self) -> None:
        """Where things took less than planned, rungs that were left out join, as far as the others keep enough."""
        for name in OPTIONAL if self.asked.models is None and self.asked.budget is not None else ():
            (share,) = (share for share in self.plan if share.model == name)
            if name not in self.needs or share.included or self._too_dear(name):
                continue
            joining = (replace(self.needs[name], optional=True), 1)
            *others, tried = share_out([*self._wanted(self._todo()), joining], self._left, self._busy)
            if not tried.included or not all(other.included for other in others):
                return
            self.plan = [tried if one.model == name else one for one in self.plan]
            self.observer.stage(f"{name} joins, as there is more time than planned")

    def _leave_out(self, todo: Sequence[tuple[str, int]], share: Share) -> None:
        """Things took longer than planned: the last of the further seeds is left out, or else a rung."""
        name, seed = todo[-1]
        if seed == 0:
            name = share.model
            self.observer.stage(f"{name} left out: {share.reason}")
            changed = share
        else:
            self.observer.stage(f"{name}: no time is left for seed {self.asked.seed + seed}")
            (planned,) = (one for one in self.plan if one.model == name)
            changed = replace(planned, seeds=seed)
        self.plan = [changed if one.model == name else one for one in self.plan]

    # ---- one run ----

    def _begin_another(self) -> bool:
        """Begins a run where a lane is free, or where the time for it is gone leaves it out; whether there was one."""
        if len(self.under_way) == self.lanes.number:
            return False
        self._let_join()
        if not (todo := self._todo()):
            return False
        shares = self._share_out(todo)
        if left_out := [share for share in shares.values() if not share.included]:
            self._leave_out(todo, left_out[0])
            return True
        if shares and self.lanes.number > 1:  # the longest first, so that all lanes end at about the same time
            todo.sort(key=lambda one: (one[1], -shares[one[0]].seconds / shares[one[0]].seeds))
        name, seed = todo[0]
        begun = self._done() + len(self.under_way)
        self._begin(name, seed, shares.get(name), position=begun + 1, total=begun + len(todo))
        return True

    def _begin(self, name: str, seed: int, share: Share | None, *, position: int, total: int) -> None:
        spec, seconds = replace(self.specs[name], seed=self.asked.seed + seed), 0.0
        label = name + (f", seed {spec.seed}" if self.asked.seeds > 1 else "")
        title = f"[{position}/{total}] {label}"
        if share is not None:
            need, seconds = self.needs[name], share.seconds / share.seeds
            predicted = need.seconds(share.epochs)
            self.predicted[name] = dataclasses.asdict(predicted)
            title += f": {text.seconds(seconds)}" + (f", about {share.epochs:.3g} epochs" if share.epochs else "")
            if share.epochs and predicted.value <= SURE_SHARE * self._left:
                spec = replace(spec, epochs=share.epochs, budget=max(GUARD * seconds, 1.0))
            else:
                spec = replace(spec, budget=max(seconds, 1.0))
        self.observer.stage(title)
        self.took = None
        folder, now = self._folder(name, seed), self.clock.seconds()
        self.under_way[folder] = _UnderWay(name, seed, now, now + seconds)
        self.lanes.start(label, spec, folder, page=self._pages)

    def _end_another(self) -> bool:
        """Waits until a run has ended; whether there was one to wait for."""
        if not self.under_way:
            return False
        self._take(*self.lanes.wait())
        self._note()
        return True

    def _take(self, folder: Path, error: LenextError | None) -> None:
        run = self.under_way.pop(folder)
        if error is not None:
            self.observer.stage(f"{run.name} failed: {error}")
            self.errors[run.name] = str(error)
            return
        left = Finished.read(folder)
        if left is None:
            raise DataError(f"{folder}: its run has finished elsewhere; accepted: an --out that all machines reach")
        self.finished[run.name][run.seed] = left
        # Of a run that was stopped, what it took before counts, too; then as many ran at a time
        before = left.summary["seconds"] - (self.clock.seconds() - run.began)
        self.clock.add(max(0.0, before) / self.lanes.number)

    def _folder(self, name: str, seed: int) -> Path:
        return self.record.path(name if seed == 0 else f"{name}-seed{self.asked.seed + seed}")

    def _done(self) -> int:
        return sum(map(len, self.finished.values())) + len(self.errors)

    # ---- what comes out ----

    def _document(self) -> dict[str, Any]:
        """comparison.json, as far as it is known."""
        judged = "test" if len(self.images.test) else "val"
        return {
            "data": self.images.name,
            "fingerprint": self.images.fingerprint,
            "budget": self.asked.budget,
            "seconds": self._seconds(),
            "seeds": [self.asked.seed + seed for seed in range(self.asked.seeds)],
            "command": self.asked.command,
            "test": {"name": judged, "images": len(getattr(self.images, judged))},
            "constraints": dataclasses.asdict(self.asked.constraints),
            "plan": [share.row() for share in self.plan],
            "rungs": self._rows(),
        }

    def _seconds(self) -> float:
        """That it has taken; reading again what had come to its end takes it no further."""
        return round(self.clock.seconds(), 3) if self.took is None else self.took

    def _rows(self) -> list[dict[str, Any]]:
        """A row per rung that has run."""
        rows = []
        for name, spec in self.specs.items():
            runs = self._runs(name)
            if not runs and name not in self.errors:
                continue
            row = rung(spec.model.name)
            folders = [run.root.name for run in runs] or [self._folder(name, 0).name]
            rows.append(
                {"model": name, "family": row.family, "year": row.year, "run": folders[0], "runs": folders}
                | dict.fromkeys(outcome.KEYS)
                | (outcome.figures(runs) if runs else {})
                | {"predicted_seconds": self.predicted.get(name), "error": self.errors.get(name) if not runs else None}
            )
        return rows

    def _runs(self, name: str) -> list[Finished]:
        """Those of a rung that have finished, by their seeds."""
        return [run for _, run in sorted(self.finished[name].items())]

    def _note(self) -> None:
        """So that another call can continue from here."""
        self.record.write_json("comparison.json", self._document())

    def _conclude(self) -> Comparison:
        document, record = self._document(), self.record
        runs = {name: self._runs(name) for name, finished in self.finished.items() if finished}
        rows, judged = document["rungs"], self.images.test if len(self.images.test) else self.images.val
        verdict = decide(rows, runs, self.asked.constraints, document["test"])
        bundle = None
        if verdict.winner is not None:
            best = max(runs[verdict.winner], key=lambda run: run.summary["val_accuracy"] or 0.0)
            bundle = write_whole(record.path("best.lenext"), (best.root / "best.lenext").read_bytes())
        separating, pictures = outcome.separating(runs, judged)
        write_array(record.path("separating.npy"), pictures)
        record.write_json("env.json", environment())
        record.write_csv("results.csv", list(rows[0]), ([row[key] for key in rows[0]] for row in rows))
        document |= {
            "winner": verdict.winner,
            "best": verdict.best,
            "verdict": verdict.words,
            "next": next_command(bundle) if bundle else None,
            "pairs": outcome.pairs(runs),
            "frontier": outcome.frontier(rows),
            "agreement": outcome.agreement(runs),
            "separating": separating,
        }
        record.write_json("comparison.json", document)
        self.observer.stage("writing the comparison's report")
        page = report(record.root)
        document["seconds"] = self._seconds()
        record.write_json("comparison.json", document)
        return Comparison(
            root=record.root,
            report=page,
            bundle=bundle,
            winner=verdict.winner,
            best=verdict.best,
            verdict=verdict.words,
            seconds=document["seconds"],
            plan=document["plan"],
            rungs=rows,
            pairs=document["pairs"],
        )


def _amount(values: Mapping[str, float] | None) -> Amount | None:
    return None if values is None else Amount(**values)

"""What a comparison is asked: which rungs, for how long, within which limits."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from lenext.comparison.verdict import Constraints
from lenext.data import Dataset
from lenext.errors import UsageError
from lenext.ladder import SECTIONS, cost, resolve, rung
from lenext.models import variant
from lenext.spec import OF_ALL_NETWORKS, Model, Run, from_dict, merge, read_yaml, to_dict

# What is compared unless the user says otherwise: rungs that a small processor trains in minutes
DEFAULT = ("softmax", "svm_linear", "bow_sift", "lenet", "lenet_relu", "resnet20")
# The same with a budget, which is shared out among them; from the cheapest network up. `OPTIONAL` ones join, in this
# order, while the others keep enough epochs. A width after @ is what a small processor trains in minutes; whether
# pictures may be mirrored nobody knows beforehand, so a rung that mirrors them shows it on the validation images
BUDGETED = ("softmax", "svm_linear", "hog_svm", "bow_sift", "vlad_sift", "fisher_sift", "lenet", "lenet_relu",
            "resnet20", "resnet9")  # fmt: skip
OPTIONAL = ("resnet9+flip", "alexnet@0.25", "vgg11_bn@0.25", "googlenet@0.25", "resnext29_2x32d@0.25")

FILE = "compare.yaml"  # that a comparison's folder is known by


@dataclass(frozen=True)
class Asked:
    """The question, as it is kept in the comparison's folder."""

    data: str
    models: tuple[str, ...] | None = None
    epochs: float | None = None
    budget: float | None = None  # seconds
    seed: int = 0
    seeds: int = 1
    max_latency_ms: float | None = None
    max_size_bytes: float | None = None
    max_macs: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The rungs to compare."""
        if self.models is not None:
            return self.models
        return DEFAULT if self.budget is None else BUDGETED + OPTIONAL

    @property
    def constraints(self) -> Constraints:
        return Constraints(self.max_latency_ms, self.max_size_bytes, self.max_macs)

    @property
    def command(self) -> str:
        """What to type for the same comparison."""
        options = {
            "models": ",".join(self.models) if self.models else None,
            "budget": None if self.budget is None else f"{self.budget:g}s",
            "epochs": self.epochs,
            "seeds": self.seeds if self.seeds > 1 else None,
            "seed": self.seed or None,
            "max-latency": self.max_latency_ms,
            "max-size": self.max_size_bytes,
            "max-macs": self.max_macs,
        }
        words = ["lenext", "compare", self.data]
        for option, value in options.items():
            if value is not None:
                words += [f"--{option}", value if isinstance(value, str) else f"{value:.12g}"]
        for path, value in _flat(self.settings):
            words += ["--set", f"{path}={json.dumps(value)}"]  # which is YAML
        return shlex.join(words)

    def spec(self, name: str) -> Run:
        """The run of rung `name`: the settings less those that it does not read; its time is shared out later.

        After the model's own name a width may follow, ``@0.5``, and how many vote, ``@0.5x3``, and then ``+flip``:
        trained on mirrored images, too, and scored by both.
        """
        model, plus, mirrored = name.partition("+")
        plain, at, size = model.partition("@")
        width, times, voters = size.partition("x")
        row, unread = rung(plain), {"model", *SECTIONS}
        own = {key: value for key, value in self.settings.items() if key not in unread - {*row.sections}}
        options = self.settings.get("model", {})
        if row.is_network and isinstance(options, Mapping):
            from_dict(Model, {**options, "name": plain}, "model")  # which keys there are
            own["model"] = {key: options[key] for key in options if key in (*variant(plain).options, *OF_ALL_NETWORKS)}
        if at:
            if not row.is_network:
                raise UsageError(f"{name}: {plain} has no width; accepted with @: networks, such as resnet9@0.5")
            own["model"] = {**own.get("model", {}), "width": width}
            if times:
                own["model"]["members"] = int(voters) if voters.isdecimal() else voters
        if plus:
            if mirrored != "flip" or not row.is_network:
                raise UsageError(f"{name}: given +{mirrored}, accepted: +flip, of networks, such as resnet9+flip")
            own = merge(own, {"model": {"mirror": True}, "recipe": {"augment": {"flip": True}}})
        given = {"seed": self.seed, "epochs": self.epochs, "budget": self.budget}
        spec = resolve(self.data, plain, own, {key: value for key, value in given.items() if value is not None})
        return replace(spec, budget=None)

    def to_yaml(self) -> str:
        """The file `FILE`, without what is not given."""
        values = {key: value for key, value in vars(self).items() if value is not None}
        if self.models is not None:
            values["models"] = list(self.models)
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    @classmethod
    def read(cls, path: Path) -> "Asked":
        """What `to_yaml` wrote. Raises UsageError where it is something else."""
        values = read_yaml(path)
        if isinstance(models := values.get("models"), list):
            values["models"] = tuple(models)
        try:
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"{path} is not a comparison's, as lenext writes it: {error}") from error

    def must_be(self, other: "Asked", root: Path) -> None:
        """Raises UsageError where the comparison in `root`, which is this one, is not the `other` that is given."""
        for key, value in vars(self).items():
            if value != (given := getattr(other, key)):
                raise UsageError(
                    f"{root} holds another comparison: {key} is {_shown(value)} there, given {_shown(given)}; "
                    f"give another --out, or `lenext resume {root}`"
                )


def multiply_adds(spec: Run, images: Dataset) -> int:
    """Of the rung that `spec` describes, for one of `images`; counted, not built. Raises UsageError as a run does."""
    shape = {"classes": len(images.classes), "channels": images.preprocess.channels, "size": images.preprocess.size}
    if spec.recipe is not None:
        options = {key: value for key, value in to_dict(spec.model).items() if key not in ("name", "weights")}
        return cost(spec.model.name, **shape, **options).macs
    sections = {key: value for key, value in to_dict(spec).items() if key in rung(spec.model.name).sections}
    return cost(spec.model.name, **shape, **sections).macs


def _flat(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (dotted path, value)."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        path = f"{above}.{key}" if above else str(key)
        found += _flat(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)

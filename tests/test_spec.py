"""What a run is: strict in, complete out."""

import pytest

from lenext.errors import UsageError
from lenext.spec import (
    Augment,
    Data,
    Model,
    Recipe,
    Run,
    from_dict,
    merge,
    parse_amount,
    parse_seconds,
    parse_sets,
    read_yaml,
    to_dict,
    to_yaml,
    validate,
)

RUN = Run(
    data=Data("digits", size=28),
    model=Model("lenet"),
    recipe=Recipe(lr=0.1, augment=Augment(shift=2, flip=True)),
    epochs=3.0,
    seed=7,
)


def test_yaml_and_back_is_the_same_run(tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text(to_yaml(RUN))
    assert from_dict(Run, read_yaml(path)) == RUN


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"recipe": {"lrr": 1}}, r"unknown key 'recipe.lrr'; did you mean 'recipe.lr'\?"),
        (
            {"recipe": {"augment": {"shfit": 1}}},
            r"unknown key 'recipe.augment.shfit'; did you mean 'recipe.augment.shift'\?",
        ),
        ({"recipe": {"lr": "fast"}}, r"recipe.lr: given 'fast', accepted: a number"),
        ({"recipe": {"batch_size": 2.5}}, r"recipe.batch_size: given 2.5, accepted: a whole number"),
        ({"recipe": {"batch_size": True}}, r"recipe.batch_size: given True, accepted: a whole number"),
        ({"recipe": {"optimizer": "adam"}}, r"recipe.optimizer: given 'adam', accepted: sgd, adamw, muon"),
        ({"recipe": {"loss": "hinge"}}, r"recipe.loss: given 'hinge', accepted: cross_entropy, focal"),
        ({"recipe": {"augment": {"flip": "yes"}}}, r"flip: given 'yes', accepted: true or false"),
        ({"recipe": 3}, r"recipe: expected a mapping of keys to values, given 3"),
        ({"zzz": 3}, r"unknown key 'zzz'; accepted: data, model"),
    ],
)
def test_what_is_not_known_is_an_error_that_helps(values, said):
    with pytest.raises(UsageError, match=said):
        from_dict(Run, merge(to_dict(RUN), values))


def test_a_missing_key_is_named():
    with pytest.raises(UsageError, match=r"missing key 'data.source'"):
        from_dict(Run, {"data": {}, "model": {"name": "lenet"}})


def test_numbers_that_yaml_reads_as_text_are_numbers():
    assert from_dict(Recipe, {"weight_decay": "1e-3", "lr": 1}) == Recipe(weight_decay=0.001, lr=1.0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"budget": 60.0}, "both epochs and budget"),
        ({"epochs": 0.0}, "epochs: given 0, accepted"),
        ({"data": {"channels": 2}}, "data.channels: given 2, accepted: 1, 3"),
        ({"data": {"size": 0}}, "data.size: given 0, accepted: 1 to 4096"),
        ({"recipe": {"lr": -1.0}}, "recipe.lr: given -1, accepted: more than 0"),
        ({"recipe": {"focal_gamma": -0.5}}, "recipe.focal_gamma: given -0.5, accepted: 0 to 100"),
        ({"recipe": {"class_weights": True, "balanced": True}}, "both recipe.class_weights and recipe.balanced"),
        ({"recipe": {"augment": {"erase": 1.5}}}, "recipe.augment.erase: given 1.5, accepted: 0 to 1"),
    ],
)
def test_values_out_of_range_are_refused(values, said):
    with pytest.raises(UsageError, match=said):
        validate(from_dict(Run, merge(to_dict(RUN), values)))


def test_the_last_layer_lies_on_top():
    layers = {"recipe": {"lr": 0.1, "epochs": 5}}, {"recipe": {"lr": 0.2}}, {"seed": 3}
    assert merge(*layers) == {"recipe": {"lr": 0.2, "epochs": 5}, "seed": 3}


def test_settings_from_the_command_line_nest():
    assert parse_sets(["recipe.lr=1e-1", "data.fit=crop", "recipe.augment.flip=true"]) == {
        "recipe": {"lr": "1e-1", "augment": {"flip": True}},
        "data": {"fit": "crop"},
    }
    for wrong in ("recipe.lr", "=3", "a..b=1"):
        with pytest.raises(UsageError, match="expected KEY=VALUE"):
            parse_sets([wrong])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("2m", 120), ("1h30m", 5400), ("1.5m", 90), (45, 45), (None, None)],
)
def test_durations(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "2x", "m", "-3s", "0"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(UsageError, match="as a duration, accepted: 90, 90s, 2m, 1h30m"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("text", "unit", "amount"),
    [("5MB", "B", 5e6), ("800 kB", "B", 8e5), ("1.5G", "B", 1.5e9), ("12", "B", 12), ("100M", "", 1e8),
     ("0.5k", "", 500), (".15T", "", 1.5e11), (7, "", 7), (None, "B", None)],
)  # fmt: skip
def test_amounts(text, unit, amount):
    assert parse_amount(text, unit=unit) == (None if amount is None else pytest.approx(amount))


@pytest.mark.parametrize("text", ["", "5 apples", "MB", "1.2.3M", "-5M", "5MiB", "1e"])
def test_what_is_no_amount(text):
    with pytest.raises(UsageError, match=r"accepted: 5000B, 800kB, 5MB, 1\.5GB"):
        parse_amount(text, unit="B")

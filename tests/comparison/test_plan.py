"""Sharing out the time: by what each rung is foretold to need, and nothing that cannot be kept."""

import pytest

from lenext.comparison.plan import Need, Share, first_plan, share_out
from lenext.costing import Amount


def exactly(seconds: float) -> Amount:
    return Amount(seconds, seconds, seconds)


def network(name: str, epoch: float, epochs: float = 20.0, once: float = 0.0, *, optional: bool = False) -> Need:
    return Need(name, exactly(once), exactly(epoch), epochs, optional)


def classical(name: str, seconds: float, high: float) -> Need:
    return Need(name, Amount(seconds, seconds / 2, high))


def plan_of(*needs: Need, seconds: float, seeds: int = 1) -> dict[str, Share]:
    return {share.model: share for share in first_plan(needs, seconds, seeds)}


def test_networks_get_the_same_number_of_epochs_at_what_each_costs() -> None:
    plan = plan_of(network("a", 1.0), network("b", 3.0), seconds=40)
    assert {name: (share.epochs, share.seconds) for name, share in plan.items()} == {"a": (10, 10), "b": (10, 30)}


def test_a_network_so_cheap_that_it_fits_into_half_of_an_equal_share_gets_all_of_its_epochs() -> None:
    # Half of an equal share is 10 s of 60: 20 epochs of the first do with 10, and 50 s are left for 5 an epoch
    plan = plan_of(network("a", 0.5), network("b", 2.0), network("c", 3.0), seconds=60)
    assert {name: share.epochs for name, share in plan.items()} == {"a": 20, "b": 10, "c": 10}
    plan = plan_of(network("a", 0.6), network("b", 2.0), network("c", 2.4), seconds=60)
    assert {name: share.epochs for name, share in plan.items()} == pytest.approx({"a": 12, "b": 12, "c": 12})


def test_what_does_not_hang_on_epochs_comes_first() -> None:
    plan = plan_of(network("a", 1.0, once=4.0), network("b", 3.0, once=6.0), seconds=50)
    assert {name: (share.epochs, share.seconds) for name, share in plan.items()} == {"a": (10, 14), "b": (10, 36)}


def test_what_a_cheap_network_does_not_need_goes_to_the_dearer_ones() -> None:
    # Of 100 s the first needs 5 · 1; the other two share 95 at 2 and 3 an epoch
    plan = plan_of(network("a", 1.0, epochs=5), network("b", 2.0, epochs=50), network("c", 3.0, epochs=50), seconds=100)
    assert plan["a"].epochs == 5
    assert plan["b"].epochs == plan["c"].epochs == pytest.approx(19)


def test_a_classical_rung_gets_the_upper_end_of_what_it_needs_and_nothing_more() -> None:
    plan = plan_of(classical("svm", 10, high=15), network("a", 1.0, epochs=100), seconds=100)
    assert plan["svm"].seconds == 15
    assert plan["svm"].epochs is None
    assert plan["svm"].predicted == Amount(10, 5, 15)
    assert plan["a"].epochs == pytest.approx(85)


def test_classical_rungs_leave_half_to_the_networks() -> None:
    plan = plan_of(classical("svm", 60, high=90), classical("hog", 20, high=30), network("a", 1.0, 100), seconds=100)
    assert (plan["svm"].seconds, plan["hog"].seconds) == pytest.approx((37.5, 12.5))
    assert plan["a"].seconds == pytest.approx(50)
    alone = plan_of(classical("svm", 60, high=90), classical("hog", 20, high=30), seconds=100)
    assert sum(share.seconds for share in alone.values()) == pytest.approx(100)


def test_what_cannot_do_an_epoch_is_left_out_by_name_with_the_reason() -> None:
    plan = plan_of(network("a", 1.0), network("dear", 500.0, once=2.0), network("b", 2.0), seconds=60)
    assert not plan["dear"].included
    assert plan["dear"].reason is not None
    assert plan["dear"].reason.startswith("an epoch takes 8.4 min, its share is ")
    assert plan["dear"].seconds == plan["dear"].seeds == 0
    assert plan["a"].epochs == plan["b"].epochs == 20
    assert plan["dear"].row() == {
        "model": "dear", "seeds": 0, "epochs": None, "seconds": 0.0, "predicted": None, "included": False,
        "reason": plan["dear"].reason,
    }  # fmt: skip


def test_a_classical_rung_that_gets_too_little_is_left_out_too() -> None:
    plan = plan_of(classical("svm", 3, high=5), classical("slow", 300, high=600), network("a", 1.0), seconds=60)
    assert plan["slow"].reason == "needs 5.0 min, of which 30 s would be left for it"
    assert plan["svm"].seconds == 5


def test_time_that_is_left_over_lets_all_go_on_up_to_three_times_the_recipe() -> None:
    plan = plan_of(network("a", 1.0), network("b", 3.0), seconds=160)
    assert plan["a"].epochs == plan["b"].epochs == pytest.approx(40)
    most = plan_of(network("a", 1.0), network("b", 3.0), seconds=10_000)
    assert most["a"].epochs == most["b"].epochs == 60


def test_a_rung_nobody_asked_for_by_name_joins_while_the_others_keep_eight_epochs() -> None:
    needs = (network("a", 1.0), network("b", 3.0), network("c", 4.0, optional=True), network("d", 2.0, optional=True))
    assert all(share.included for share in plan_of(*needs, seconds=80).values())
    plan = plan_of(*needs, seconds=75)
    assert [name for name, share in plan.items() if share.included] == ["a", "b", "c"]
    assert "8 epochs" in str(plan["d"].reason)
    assert plan["a"].epochs == pytest.approx(75 / 8)
    assert [name for name, share in plan_of(*needs, seconds=60).items() if share.included] == ["a", "b"]


def test_further_seeds_come_from_the_cheapest_up_while_networks_keep_half_their_epochs() -> None:
    needs = (network("b", 3.0, epochs=40), classical("svm", 2, high=4), network("a", 1.0, epochs=5))
    plan = plan_of(*needs, seconds=60, seeds=3)
    # One seed each: svm 4, a 5, b 51 s (17 epochs); three of the cheap ones leave b 33 s; a second of b would leave it
    # 5.5 epochs, and 8.5 are half
    assert {name: share.seeds for name, share in plan.items()} == {"b": 1, "svm": 3, "a": 3}
    assert list(plan) == ["b", "svm", "a"]
    assert plan["b"].epochs == pytest.approx(11)
    assert plan["svm"].seconds == 12
    assert plan["a"].seconds == 15
    ample = plan_of(*needs, seconds=10_000, seeds=3)
    assert {share.seeds for share in ample.values()} == {3}


@pytest.mark.parametrize("seconds", [3.0, 17.0, 60.0, 300.0, 5000.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_plan_never_takes_more_than_there_is(seconds: float, seeds: int) -> None:
    needs = [classical("svm", 2, high=4), classical("hog", 30, high=50), network("a", 0.2, 20, once=1),
             network("b", 2, 30, once=1), network("c", 9, 20, once=3)]  # fmt: skip
    plan = first_plan(needs, seconds, seeds)
    assert sum(share.seconds for share in plan) <= seconds * (1 + 1e-9)
    assert [share.model for share in plan] == [need.model for need in needs]
    for share in plan:
        assert share.included == (share.seeds > 0)
        assert share.epochs is None or share.epochs >= 1 - 1e-9


def test_sharing_out_again_what_is_really_left() -> None:
    a, b = network("a", 1.0, epochs=40), network("b", 3.0, epochs=40)
    shares = {share.model: share for share in share_out([(a, 2), (b, 1)], 50)}
    assert shares["a"].epochs == shares["b"].epochs == 10
    assert shares["a"].seconds == 20
    (late,) = share_out([(b, 1)], -3.0)
    assert not late.included


def test_lanes_share_their_time_together_but_no_run_is_longer_than_one() -> None:
    needs = [network("a", 1.0, 60), network("b", 1.0, 60), network("c", 1.0, 60), network("d", 1.0, 60)]
    assert {share.seconds for share in first_plan(needs, 60, 1, 2)} == {30.0}
    # Of three on two lanes the last begins when the first two have ended
    assert [share.seconds for share in first_plan(needs[:3], 60, 1, 2)] == pytest.approx([30] * 3, rel=0.002)
    # What a lane is too short for goes to the others
    dear, *cheap = first_plan([network("dear", 6.0, 60), *needs], 60, 1, 3)
    assert (dear.seconds, dear.epochs) == (60, 10)
    assert [share.seconds for share in cheap] == [30] * 4
    (left_out, a) = first_plan([network("dear", 61.0), needs[0]], 60, 1, 4)
    assert left_out.reason == "an epoch takes 1.0 min, its share is 1.0 min"
    assert a.seconds == 60


def test_lanes_that_are_busy_have_less_to_share() -> None:
    a, b = network("a", 1.0, 60), network("b", 1.0, 60)
    assert [share.seconds for share in share_out([(a, 1), (b, 1)], 40, [0.0, 20.0])] == pytest.approx(
        [20, 20], rel=0.002
    )
    (alone,) = share_out([(a, 1)], 40, [10.0, 0.0, 40.0])
    assert alone.seconds == 40
    (classic,) = share_out([(classical("svm", 30, high=60), 1)], 40, [0.0, 0.0])
    assert classic.seconds == 40


@pytest.mark.parametrize("lanes", [2, 3, 8])
@pytest.mark.parametrize("seconds", [3.0, 17.0, 60.0, 300.0, 5000.0])
def test_every_lane_ends_in_time(seconds: float, lanes: int) -> None:
    needs = [classical("svm", 2, high=4), classical("hog", 30, high=50), network("a", 0.2, 20, once=1),
             network("b", 2, 30, once=1), network("c", 9, 20, once=3)]  # fmt: skip
    plan, left = first_plan(needs, seconds, 3, lanes), [seconds] * lanes
    for each in sorted((share.seconds / share.seeds for share in plan for _ in range(share.seeds)), reverse=True):
        left[left.index(max(left))] -= each
    assert min(left) >= -1e-6 * seconds

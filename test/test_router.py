# Copyright 2026 The nightseg developers
# SPDX-License-Identifier: Apache-2.0
"""The router: thresholds, dwell, jumps in time, forced routes and shared decisions."""

import math

from hypothesis import given
from hypothesis import strategies as st
from nightseg_ros.config import ConfigError, from_mapping
from nightseg_ros.perception.illumination import Illumination, state_of
from nightseg_ros.perception.router import Decision, Router, RouterBank, RouterConfig, RouteTable
import pytest

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
FRAME = SECOND // 10


def light(score: float, *, glare: bool = False) -> Illumination:
    return Illumination(score=score, state='glare' if glare else state_of(score))


LIGHTS = {
    'day': light(0.95), 'dusk': light(0.5), 'night': light(0.05), 'glare': light(0.5, glare=True),
}  # fmt: skip


def drive(router: Router, scores: list[float], start: int = START) -> list[Decision]:
    return [router.update(start + i * FRAME, light(score)) for i, score in enumerate(scores)]


def first(decisions: list[Decision], route: str) -> int:
    return next(i for i, decision in enumerate(decisions) if decision.route == route)


@pytest.mark.parametrize(
    ('score', 'state', 'route'),
    [
        (0.02, 'night', 'night'), (0.3499, 'night', 'night'), (0.35, 'dusk', 'day'),
        (0.65, 'dusk', 'day'), (0.6501, 'day', 'day'), (0.98, 'day', 'day'),
    ],
)  # fmt: skip
def test_first_frame_decides_at_once(score, state, route):
    decision = Router().update(START, light(score))
    assert (decision.state, decision.route, decision.switched) == (state, route, False)
    assert state_of(score) == state
    assert 'first frame' in decision.reason
    assert f'{score:.2f}' in decision.reason


def test_reversal_resets_the_timer_and_a_deepening_dusk_does_not():
    scores = [0.9] * 5 + ([0.1] * 5 + [0.9]) * 10
    decisions = drive(Router(), scores)
    assert {decision.route for decision in decisions} == {'day'}
    assert 'night for 0.3 of 0.5 s' in decisions[8].reason
    assert 'night' not in decisions[10].reason, 'that is over'
    decisions = drive(Router(), [0.9, 0.45, 0.45, 0.45, 0.1, 0.1, 0.1])
    assert first(decisions, 'night') == 6
    assert decisions[6].state == 'night'
    # from dusk nearly to day, then to the other side: its dwell begins there
    decisions = drive(Router(), [0.5] + [0.9] * 29 + [0.1] * 9)
    assert first(decisions, 'night') == 30 + 5


@pytest.mark.parametrize(
    ('first', 'then', 'state'),
    [(0.9, 0.60, 'day'), (0.9, 0.53, 'dusk'), (0.1, 0.42, 'night'), (0.1, 0.47, 'dusk')],
)
def test_hysteresis_holds_a_state_beyond_its_own_threshold(first, then, state):
    assert drive(Router(), [first] + [then] * 60)[-1].state == state


def test_the_table_decides_the_route():
    table = RouteTable(dusk='day', night='translate', glare='translate')
    router = Router(RouterConfig(table=table))
    assert router.update(START, light(0.5)).route == 'day'
    assert drive(router, [0.1] * 10, START + FRAME)[-1].route == 'translate'
    assert table.routes() == ('day', 'translate')


def test_a_forced_route_bypasses_the_table_and_follows_the_state():
    router = Router(forced='translate')
    decisions = drive(router, [0.9] * 5 + [0.1] * 10)
    assert {decision.route for decision in decisions} == {'translate'}
    assert not any(decision.switched for decision in decisions)
    assert decisions[0].state == 'day' and decisions[-1].state == 'night'
    assert 'forced to translate' in decisions[0].reason
    router.forced = None
    freed = router.update(START + 15 * FRAME, light(0.1))
    assert (freed.route, freed.switched) == ('night', True)


@pytest.mark.parametrize('nothing', [light(math.nan), light(math.inf)])
def test_a_missing_score_is_dusk_once_it_lasts(nothing):
    router = Router()
    first = router.update(START, nothing)
    assert (first.state, first.route, router.state) == ('dusk', 'night', None)
    assert 'no usable score since first frame: taken as dusk' in first.reason
    assert router.update(START + FRAME, light(0.9)).route == 'day'
    missing = [router.update(START + i * FRAME, nothing) for i in range(2, 9)]
    assert [decision.state for decision in missing] == ['day'] * 5 + ['dusk'] * 2
    assert 'dusk for 0.0 of 0.5 s: no score' in missing[0].reason
    # darkness is left as late as by a real dusk
    router = Router()
    router.update(START, light(0.05))
    assert all(router.update(START + i * FRAME, nothing).state == 'night' for i in range(1, 31))


@pytest.mark.parametrize(
    ('mapping', 'words'),
    [
        ({'dark': 0.7, 'bright': 0.6}, "'dark' .* below 'bright' \\(0.6\\)"),
        ({'dark': 0.5, 'bright': 0.5, 'hysteresis': 0.0}, "'dark' .* below"),
        ({'hysteresis': 0.4}, r"'hysteresis' .* bright − dark \(0.3\)"),
        ({'dwell_dark_s': math.inf}, "'dwell_dark_s' must be 0 to 600"),
        ({'gap_s': 3.0}, r"'gap_s' .* longer than both dwells \(3 s\)"),
        ({'stale_s': 0.0}, "'stale_s' must be 0.001 to 60"),
    ],
)  # fmt: skip
def test_a_wrong_config_names_its_key(mapping, words):
    with pytest.raises(ConfigError, match=words):
        from_mapping(RouterConfig, mapping)


def test_the_ends_of_every_range_are_allowed():
    ends = {'dark': 0.0, 'bright': 1.0, 'dwell_dark_s': 0.0, 'dwell_bright_s': 0.0}
    # 0.6 - 0.5 is less than 0.1
    assert from_mapping(RouterConfig, {'dark': 0.5, 'bright': 0.6}).hysteresis == 0.1
    for hysteresis in (0.0, 1.0):
        assert from_mapping(RouterConfig, {**ends, 'hysteresis': hysteresis}).bright == 1.0


scores = st.floats(0, 1)
steps = st.integers(SECOND // 60, 2 * SECOND)


@given(st.lists(st.tuples(steps, scores, st.booleans()), min_size=1, max_size=80))
def test_never_two_switches_within_a_dwell(frames):
    router, stamp = Router(), START
    changed, state, route = stamp, '', ''
    for step, score, glare in frames:
        stamp += step
        decision = router.update(stamp, light(score, glare=glare))
        assert decision.switched == bool(route and decision.route != route)
        if state != decision.state:
            least = 3 * SECOND if decision.state == 'day' else SECOND // 2
            assert not state or stamp - changed >= least
            changed = stamp
        state, route = decision.state, decision.route


@given(
    st.lists(st.tuples(st.integers(-2 * SECOND, 12 * SECOND), scores), max_size=50),
    st.integers(-START, 10 * START),
)
def test_a_shift_of_all_stamps_changes_nothing(frames, shift):
    here, there, stamp = Router(), Router(), START
    for step, score in frames:
        stamp += step
        assert here.update(stamp, light(score)) == there.update(stamp + shift, light(score))


def bank_drive(bank: RouterBank, cameras: dict[str, float], count: int) -> str:
    route = ''
    for i in range(count):
        for offset, (camera, score) in enumerate(cameras.items()):
            stamp = START + i * FRAME + offset * 1_000_000
            route = bank.update(camera, stamp, light(score)).route
    return route


def test_cameras_are_routed_apart_unless_shared():
    bank = RouterBank()
    assert bank.update('front', START, light(0.9)).route == 'day'
    assert bank.update('rear', START, light(0.1)).route == 'night'
    bank.reset('restarted')
    decision = bank.update('rear', START + FRAME, light(0.9))
    assert (decision.route, decision.switched) == ('day', True)
    assert 'restarted' in decision.reason
    assert 'restarted' in bank.update('front', START + FRAME, light(0.9)).reason


@pytest.mark.parametrize('shared', [False, True])
def test_a_forced_route_reaches_every_camera(shared):
    bank = RouterBank(RouterConfig(shared=shared))
    bank_drive(bank, {'a': 0.9, 'b': 0.9}, 5)
    bank.force('translate')
    routes = [bank.update(name, START + 5 * FRAME, light(0.9)).route for name in ('b', 'a', 'c')]
    assert routes == ['translate'] * 3


@pytest.mark.parametrize('shared', [False, True])
def test_another_config_changes_no_state(shared):
    bank = RouterBank(RouterConfig(shared=shared))
    bank.update('front', START, light(0.1))
    bank.change(RouterConfig(shared=shared, dwell_bright_s=9.0, table=RouteTable(night='day')))
    decision = bank.update('front', START + FRAME, light(0.4))
    # hysteresis holds the night, and the route that the table changed is a switch
    assert (decision.state, decision.route, decision.switched) == ('night', 'day', True)
    # of two cameras the same one goes on to lead
    before = bank.update('rear', START + FRAME, light(0.4))
    bank.change(RouterConfig(shared=shared))
    after = bank.update('rear', START + 2 * FRAME, light(0.4))
    assert not shared or after.reason == before.reason == decision.reason
    bank.change(RouterConfig(shared=not shared))
    reason = bank.update('front', START + 2 * FRAME, light(0.4)).reason
    assert 'first frame' in reason and ('median' in reason) is not shared


def test_the_median_of_the_cameras_decides_a_shared_route():
    bank = RouterBank(RouterConfig(shared=True))
    assert bank_drive(bank, {'a': 0.9, 'b': 0.9, 'c': 0.05}, 20) == 'day'
    switched = 0
    for i in range(20):
        for camera, score in {'a': 0.9, 'b': 0.05, 'c': 0.05}.items():
            decision = bank.update(camera, START + 2 * SECOND + i * FRAME, light(score))
            switched += decision.switched
    assert decision.route == 'night' and switched == 1, 'a switch is told once'
    last = [bank.update(name, START + 4 * SECOND, light(0.9)) for name in 'abc']
    assert len({decision.route for decision in last}) == 1
    assert 'median of 3 cameras' in bank.update('a', START + 4 * SECOND + FRAME, light(0.9)).reason


def test_a_camera_with_a_foreign_clock_does_not_tear_the_decision():
    bank = RouterBank(RouterConfig(shared=True))
    for i in range(50):
        near = bank.update('a', START + i * FRAME, light(0.9))
        far = bank.update('b', START + 3600 * SECOND + i * FRAME, light(0.05))
        assert near.route == far.route == 'day'
        assert 'median of 1 cameras' in near.reason


def test_a_shared_bag_loop_decides_afresh():
    bank = RouterBank(RouterConfig(shared=True))
    bank_drive(bank, {'a': 0.9, 'b': 0.9}, 20)
    bank.update('b', START - 60 * SECOND, light(0.1))
    decision = bank.update('a', START - 60 * SECOND, light(0.1))
    assert decision.route == 'night'
    assert 'time went back' in decision.reason


@pytest.mark.parametrize(('cameras', 'state'), [('ab', 'glare'), ('abc', 'day')])
def test_half_of_the_cameras_dazzled_is_glare_and_a_third_is_not(cameras, state):
    bank = RouterBank(RouterConfig(shared=True))
    for i in range(60):
        for camera in cameras:
            glare = camera == 'b' and i >= 5
            decision = bank.update(camera, START + i * FRAME, light(0.9, glare=glare))
    assert decision.state == state


@pytest.mark.parametrize(
    ('before', 'after', 'seconds'),
    [
        ('night', 'dusk', 3.0), ('glare', 'dusk', 3.0), ('dusk', 'day', 3.0),
        ('glare', 'night', 0.5), ('night', 'glare', 0.5), ('dusk', 'night', 0.5),
        ('day', 'dusk', 0.5),
    ],
)  # fmt: skip
def test_only_more_light_has_to_last_for_long(before, after, seconds):
    router = Router()
    begun = router.update(START, LIGHTS[before])
    assert begun.state == before
    frames = [router.update(START + i * FRAME, LIGHTS[after]) for i in range(1, 40)]
    changed = next(i for i, decision in enumerate(frames) if decision.state == after)
    assert changed * FRAME == seconds * SECOND
    assert router.state == after
    assert f'; {after} for 0.1 of {seconds:g} s: ' in frames[1].reason
    cause = 'a dazzling light' if after == 'glare' else 'score '
    assert frames[-1].reason.startswith(f'{before} to {after} after {seconds:.1f} s: {cause}')
    routes = [begun.route, *(decision.route for decision in frames)]
    assert [frame.switched for frame in frames] == [a != b for a, b in zip(routes, routes[1:])]


def test_a_repeated_stamp_starts_no_timer_and_is_not_called_late():
    router = Router()
    router.update(START, light(0.9))
    again = router.update(START, light(0.1))
    assert 'late' not in again.reason and 'night' not in again.reason
    assert router.update(START + SECOND // 2, light(0.1)).route == 'day'
    switch = router.update(START + SECOND, light(0.1))
    assert switch.route == 'night' and switch.switched
    # the batch of a camera that failed is processed again
    assert router.update(START + SECOND, light(0.1)) == switch
    router.forced = 'day'
    assert router.update(START + SECOND, light(0.1)).route == 'day'


@pytest.mark.parametrize(
    ('jump', 'words', 'afresh'),
    [
        (-SECOND // 2, '500 ms late, ignored', False), (-SECOND, '1000 ms late, ignored', False),
        (-SECOND - 1000, 'back 1.0 s', True), (-60 * SECOND, 'time went back 60.0 s', True),
        (10 * SECOND, 'night for 0.0 of', False), (10 * SECOND + 1000, 'no frame for 10.0', True),
        (86_400 * SECOND, 'no frame for 86400.0 s', True),
        # a clock that was set says nothing of the light
        (86_400 * SECOND + 1000, 'night for 0.0 of', False),
    ],
)  # fmt: skip
def test_a_second_back_ten_forward_and_more_than_a_day_are_no_jump(jump, words, afresh):
    router = Router()
    router.update(START, light(0.9))
    decision = router.update(START + jump, light(0.1))
    assert words in decision.reason
    assert (decision.route == 'night') == decision.switched == afresh


@pytest.mark.parametrize('wild', [0, 12 * SECOND, START + 40 * 365 * 86_400 * SECOND])
@pytest.mark.parametrize('once', [True, False], ids=['one wild stamp', 'a clock that is set'])
@pytest.mark.parametrize('shared', [True, False])
def test_a_wild_stamp_changes_neither_route_nor_dwell(wild, once, shared):
    def changes(wild_at: int | None) -> list[int]:
        """Return the frames behind which the state is another one."""
        bank, states = RouterBank(RouterConfig(shared=shared)), []
        for index, score in enumerate([0.1] * 20 + [0.9] * 60 + [0.1] * 20):
            stamps = dict.fromkeys('ab', START + index * FRAME)
            if wild_at is not None and (index == wild_at if once else index >= wild_at):
                for camera in 'a' if once else 'ab':
                    stamps[camera] = wild + (index - wild_at) * FRAME
            both = [bank.update(name, at, light(score)) for name, at in stamps.items()]
            states.append(both[0].state)
        return [index for index, (a, b) in enumerate(zip(states, states[1:])) if a != b]

    meant = changes(None)
    for at in (10, 40, 82):
        found = changes(at)
        # a wild frame has no duration, so that a dwell may end one or two frames later
        assert len(found) == len(meant) == 2, (at, found, meant)
        assert all(0 <= new - old <= 3 for new, old in zip(found, meant)), (at, found, meant)


def test_after_a_reset_a_shared_route_is_decided_by_what_comes_then():
    bank = RouterBank(RouterConfig(shared=True))
    bank_drive(bank, {'a': 0.9, 'b': 0.9, 'c': 0.9}, 5)
    bank.reset('the lens was cleaned')
    decision = bank.update('b', START + 5 * FRAME, light(0.1))
    assert (decision.route, decision.state) == ('night', 'night')
    assert 'the lens was cleaned' in decision.reason and 'median of 1 cameras' in decision.reason


def test_scores_of_a_second_ago_have_a_say_and_older_ones_none():
    for late, cameras in ((0, 2), (1, 1)):
        bank = RouterBank(RouterConfig(shared=True))
        bank.update('a', START, light(0.9))
        bank.update('b', START, light(0.9))
        decision = bank.update('a', START + SECOND + late, light(0.9))
        assert f'median of {cameras} cameras' in decision.reason
    decision = RouterBank(RouterConfig(shared=True)).update('a', START, light(math.nan))
    assert decision.state == 'dusk' and 'median of 0 cameras' in decision.reason


def test_another_camera_leads_after_one_second_of_its_own():
    bank = RouterBank(RouterConfig(shared=True))
    bank.update('a', START, light(0.9))
    held = [bank.update('b', START + i * SECOND // 4, light(0.1)).reason for i in range(4)]
    assert len(set(held)) == 1
    assert 'dusk for' in bank.update('b', START + SECOND, light(0.1)).reason
    # a third has to go on for as long, and what it sent under the old leader does not count
    bank.update('c', START + SECOND // 2, light(0.1))
    bank.update('b', START + SECOND * 5 // 4, light(0.1))
    held = bank.update('b', START + SECOND * 6 // 4, light(0.1)).reason
    assert bank.update('c', START + SECOND * 7 // 4, light(0.1)).reason == held
    # its clock is set by more than a day: its second begins anew
    day = START + 86_403 * SECOND
    kept = {bank.update('c', day + i * SECOND // 4, light(0.9)).reason for i in range(4)}
    assert kept == {held}
    assert bank.update('c', day + SECOND, light(0.9)).reason != held

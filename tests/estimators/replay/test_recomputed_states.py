"""States between those that a tape keeps: the same bits at any room, recomputed once where several passes ask."""

import numpy as np
import pytest
import torch

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt
from finfluence.estimators.replay import SCRATCH, RecomputedStates, recomputations
from finfluence.estimators.replay import state_bytes as bytes_of
from finfluence.estimators.replay.cost import MemorySplit, StateSizes, bytes_per_query, split_memory
from recorded_loops import Loop

QUERIES = [fi.own_loss([0, 3, 5, 7, 9])]


def state_bytes(tape: fr.Tape) -> int:
    return bytes_of(tape.layout, tape.optimizer)


def recipe(epochs: int = 12) -> fr.Recipe:
    return pt.recipe(optimizer=fr.AdamW(lr=0.02, eps=1e-4), epochs=epochs)


@pytest.fixture(scope="module")
def tapes():
    """One run with all of its 36 states, and with the first and last only."""
    return fi.train(recipe()), fi.train(recipe(), snapshot_bytes=1)


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 12, 20, 36, 80])
@pytest.mark.quick(4)
def test_the_same_bits_at_any_room(tapes, room):
    full, sparse = tapes
    assert sparse.interval == 36
    states = RecomputedStates(sparse, room)
    for _ in range(2):
        for t in reversed(range(36)):
            assert torch.equal(states.at(t), full.state(t))


@pytest.mark.parametrize(("room", "most"), [(36, 1.0), (12, 2.0), (8, 3.0), (5, 4.0)])
def test_steps_taken_again_are_near_what_was_foretold(tapes, room, most):
    states = RecomputedStates(tapes[1], room)
    held = 0
    for t in reversed(range(36)):
        states.at(t)
        held = max(held, len(states._checkpoints) + len(states._current[1]))
    assert held <= room
    assert states.recomputed <= 36 * most
    assert (
        36 * recomputations(36, room) / 2
        <= states.recomputed + 36 / room
        <= 36 * recomputations(36, room) + 1
    )


def test_further_passes_find_what_there_is_room_for(tapes, tmp_path):
    full, _ = tapes
    size = state_bytes(full)
    tape = fi.train(recipe(), snapshot_bytes=9 * size)
    assert tape.interval == 4
    counts = {}
    for name, states in {
        "nothing": RecomputedStates(tape, 4, passes=3),
        "a third": RecomputedStates(tape, 4 + 12, passes=3),
        "memory": RecomputedStates(tape, 4 + 36, passes=3),
        "folder": RecomputedStates(tape, 4, passes=30, folder=tmp_path, disk_bytes=36 * size),
        "last pass": RecomputedStates(tape, 40, passes=1),
    }.items():
        for _ in range(3):
            for t in reversed(range(36)):
                assert torch.equal(states.at(t), full.state(t))
        counts[name] = states.recomputed
        assert any(tmp_path.glob(f"{SCRATCH}*")) == (name == "folder")
        states.close()
        assert not any(tmp_path.iterdir())
    assert counts == {"nothing": 81, "a third": 27 + 2 * 18, "memory": 27, "folder": 27, "last pass": 81}


def test_a_full_disk_and_lost_files_only_cost_time(tapes, tmp_path, monkeypatch):
    full, sparse = tapes
    states = RecomputedStates(sparse, 36, passes=9, folder=tmp_path, disk_bytes=2**30)
    states.at(35)
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    states._current = 0, torch.empty(0)
    assert torch.equal(states.at(20), full.state(20))
    states.close()

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecomputedStates, "_write", no_space)
    states = RecomputedStates(sparse, 36, passes=9, folder=tmp_path, disk_bytes=2**30)
    assert torch.equal(states.at(35), full.state(35)) and states._disk == 0
    states.close()


@pytest.mark.slow
def test_replays_of_several_passes_are_the_same_bits(tapes, tmp_path):
    full, _ = tapes
    tape = fi.train(recipe(), snapshot_bytes=9 * state_bytes(full))
    leftover = tmp_path / f"{SCRATCH}old.part"
    leftover.mkdir()
    two = int(4.5 * bytes_per_query(tape)) + 4 * state_bytes(tape)
    divided = split_memory(StateSizes.of(tape), 5, True, two)
    assert (divided.together, divided.passes) == (2, 3)
    plain = fi.replay(tape, QUERIES, memory_bytes=two)
    kept = fi.replay(tape, QUERIES, memory_bytes=two, out=tmp_path)
    for name in ("effect", "spread", "mu"):
        assert np.array_equal(plain.data[name].values, kept.data[name].values)
    assert not any(tmp_path.glob(f"{SCRATCH}*")), "removed, and what a killed replay left, too"


def test_memory_is_divided_within_what_is_given():
    tape = fi.train(recipe(), snapshot_bytes=1)
    query, state = bytes_per_query(tape), state_bytes(tape)
    for queries in (1, 3, 40):
        for late in (False, True):
            for given in (20 * state + 3 * query, 30 * query, 500 * query):
                found = split_memory(StateSizes.of(tape), queries, late, given)
                used = found.together * query * (2 if late else 1) + found.held(36) * state
                assert used <= given or found.together == 1 or found.capacity == 16
                assert found.passes * found.together >= queries > (found.passes - 1) * found.together
    assert split_memory(StateSizes.of(fi.train(recipe())), 3, False, 2**30).capacity == 1


def test_words_for_where_states_come_from():
    assert MemorySplit(2, 3, 1, 1).sentence(36) == "all states are on the tape"
    assert MemorySplit(2, 1, 4, 4).sentence(36) == (
        "one state in 4 is on the tape, the others are recomputed (1 times in all)"
    )
    assert MemorySplit(2, 3, 4, 4).sentence(36).endswith("recomputed (3 times in all)")
    assert (
        MemorySplit(2, 3, 40, 4)
        .sentence(36)
        .endswith("(1 times in all; 100% of them kept in memory for further passes)")
    )
    assert (
        MemorySplit(2, 3, 4, 4, on_disk=18)
        .sentence(36)
        .endswith("(2 times in all; 50% of them kept in the folder for further passes)")
    )


def test_spacing_of_a_recorded_loop():
    tape = Loop().run(record=True)[1].finish()
    steps, size = tape.steps, state_bytes(tape)
    assert tape.interval == 1
    sparse = Loop().run(record=True, snapshot_bytes=5 * size)[1].finish()
    assert 1 < sparse.interval < steps
    states = RecomputedStates(sparse, 3)
    assert all(torch.equal(states.at(t), tape.state(t)) for t in reversed(range(steps)))

"""Parts of a model that fully_shard cut: where they lie, put together again, and the plain copy."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

import finfluence as fi
import plain_training as pt
from finfluence.distributed import Processes
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.grads import Layout
from finfluence.runs.checkpoints import ThinningCheckpoints
from finfluence.runs.record.sharded import Shards, check_parts, made_whole, rows_held, unsharded


class Told(Processes):
    """A process of three that knows what the others hold."""

    def joined(self, tensor: Tensor, sizes: list[int]) -> Tensor:
        assert [p.shape[1] for p in self.parts] == list(sizes)
        return torch.cat(self.parts, 1)


def parts_of(model: nn.Module, vectors: list[Tensor], layout: Layout) -> list[Tensor]:
    """Cut every parameter as torch.chunk does, for each of three processes."""
    parts: list[list[Tensor]] = [[], [], []]
    for vector in vectors:
        for whole in layout.split(vector).values():
            chunks = list(whole.chunk(3))
            chunks += [whole[:0]] * (3 - len(chunks))
            for part, chunk in zip(parts, chunks, strict=True):
                part.append(chunk.reshape(-1))
    return [torch.cat(part).view(len(vectors), -1) for part in parts]


def test_rows_are_cut_as_torch_cuts_them():
    for count in range(1, 9):
        for size in range(1, 5):
            cut = [len(part) for part in torch.arange(count).chunk(size)]
            assert [len(r) for r in rows_held(count, size)] == cut + [0] * (size - len(cut))


@pytest.mark.parametrize("model", [
    nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 7), nn.Linear(7, 1)),
    nn.Linear(6, 1),  # all of it with process 0
])  # fmt: skip
def test_a_state_is_put_together_from_parts_of_other_sizes(model):
    layout = Layout(model)
    state = torch.randn(3 * layout.size)
    parts = parts_of(model, list(state.view(3, -1).unbind()), layout)
    for rank, part in enumerate(parts):
        processes = Told(rank, 3)
        object.__setattr__(processes, "parts", parts)
        shards = Shards(layout, 3, processes)
        assert shards.width == part.numel() and shards.whole_width == 3 * layout.size
        assert torch.equal(shards.whole(part.reshape(-1)), state)
        own = torch.arange(shards.size)
        assert torch.equal(state[shards.places(own)], part[0])


def test_kept_states_are_widened_one_by_one_and_written(tmp_path):
    narrow = ThinningCheckpoints(2, torch.float32, torch.device("cpu"), None, budget=32, whole=2)
    for t in range(9):
        if narrow.wants(t):
            narrow.keep(t, torch.full((2,), float(t)), pin=t == 1)
    steps, held = narrow.steps, []

    def widen(part: Tensor) -> Tensor:
        held.append(len(narrow.steps))
        return part.repeat(2)

    wide = narrow.widened(4, tmp_path, widen)
    assert wide.steps == steps and held == list(range(len(steps), 0, -1)) and not narrow.steps
    wide.flush()
    wide.keep(9, torch.full((4,), 9.0), last=True)
    for t in (0, steps[-1], 9):
        assert torch.equal(wide[t], torch.full((4,), float(t)))
    assert 1 in wide and list(tmp_path.glob("kept-*.safetensors"))


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("shift", torch.ones(4))
        self.called = 0

    def score(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x) + self.shift))

    def forward(self, x: Tensor) -> Tensor:
        return self.score(x)


def counting(module: nn.Module, args: object) -> None:
    module.called += 1


@pytest.mark.usefixtures("group")
def test_a_plain_copy_is_as_the_model_was_made():
    """The user's own hook stays; class, hooks and methods of fully_shard go; the model keeps all of them."""
    model = pt.made(Named)
    model.second.requires_grad_(False)
    model.register_forward_pre_hook(counting)
    x = torch.randn(3, 4, dtype=pt.DOUBLE)
    want = model(x).detach()
    fully_shard([model.first, model.second])
    fully_shard(model)
    register_fsdp_forward_method(model, "score")
    before = (type(model), dict(model.__dict__), list(model._forward_pre_hooks), list(model._forward_hooks))
    plain = unsharded(model, made_whole(model, Processes.of("all")))
    assert (
        type(model),
        dict(model.__dict__),
        list(model._forward_pre_hooks),
        list(model._forward_hooks),
    ) == before
    assert (
        type(plain) is Named and type(plain.first) is nn.Linear and plain.first.weight is plain.second.weight
    )
    assert list(plain._forward_pre_hooks.values()) == [counting] and not plain._forward_hooks
    assert torch.equal(plain(x), want) and torch.equal(plain.score(x), want) and plain.called == 2
    assert [p.requires_grad for p in plain.parameters()] == [p.requires_grad for p in model.parameters()]
    assert plain.shift is not model.shift


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("processes", ["one", "all"])
def test_a_sharded_model_of_one_process_is_recorded_as_a_plain_one(processes):
    def effect(shard: bool) -> Tensor:
        model, rows = pt.made(pt.mlp), pt.table()
        model = fully_shard(model) if shard else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {"processes": processes} if shard else {}
        tape = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=rows, **options)
        for ids in torch.arange(12).split(4):
            pt.class_loss(model, rows.batch(ids)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            tape.step(ids=ids)
        return torch.from_numpy(fi.replay(tape, fi.own_loss([1])).data.effect.values)

    assert torch.equal(effect(True), effect(False))


@pytest.mark.usefixtures("group")
def test_parameters_off_their_mesh_are_refused():
    model = fully_shard(pt.made(pt.mlp))
    real = dict(model.named_parameters())["0.weight"]
    away = SimpleNamespace(
        device_mesh=real.device_mesh, placements=real.placements, device=torch.device("meta")
    )
    with pytest.raises(NotSupportedError) as caught:
        check_parts("0.weight", away, model, Processes.of("all"))
    for part in (
        "the device of their mesh (cpu)",
        "'0.weight' on meta",
        "CPUOffloadPolicy",
        "leave offload_policy out",
    ):
        assert part in str(caught.value)


@pytest.mark.usefixtures("group")
def test_an_optimiser_made_before_the_model_was_sharded_is_refused():
    model = pt.made(pt.mlp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fully_shard(model)
    with pytest.raises((ConfigError, NotSupportedError), match="not in the model"):
        fi.Tape.record(model, optimizer, loss=pt.class_loss, data=pt.table(), processes="all")

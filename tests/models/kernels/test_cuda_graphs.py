"""Recurrences recorded as CUDA graphs say what they say kernel by kernel.

On a machine without a GPU a stand-in takes the place of CUDA's own recording: it runs the same function on the same
memory again, as a graph does.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_sparse_rnn.models import Network, OrderedNeuronsLSTM, RecurrentHighwayNetwork
from lightning_sparse_rnn.models.kernels import cuda_graphs as module
from lightning_sparse_rnn.models.kernels.cuda_graphs import recorded

VOCAB = 11
RHN = {"embedding_size": 6, "hidden_size": 6, "depth": 3}
ON_LSTM = {"embedding_size": 6, "hidden_size": 8, "chunk_size": 2, "num_layers": 2}
NETWORKS = [(RecurrentHighwayNetwork, RHN), (RecurrentHighwayNetwork, {**RHN, "coupled": False})]
NETWORKS += [(RecurrentHighwayNetwork, {**RHN, "dropout_hidden": 0.0}), (OrderedNeuronsLSTM, ON_LSTM)]

# A GPU draws other random numbers than a CPU.
NO_DROPOUT = {
    RecurrentHighwayNetwork: dict.fromkeys([f"dropout_{at}" for at in ("embedding", "input", "hidden", "output")], 0.0),
    OrderedNeuronsLSTM: dict.fromkeys(
        [*(f"dropout_{at}" for at in ("embedding", "input", "between", "output")), "weight_drop"], 0.0
    ),
}


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put the stand-in in place, and count its replays."""
    count: list[int] = []

    def record(run, device):
        def replay():
            count.append(1)
            run()

        return replay

    monkeypatch.setattr(module, "_record", record)
    monkeypatch.setattr(
        module, "_recordable_on", lambda args: next(arg.device for arg in args if isinstance(arg, Tensor))
    )
    return count


def run(network: Network, lengths: list[int]) -> list[Tensor]:
    """Train and evaluate in turn with carried state; return losses, states and gradients."""
    device = next(network.parameters()).device
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    generator = torch.Generator().manual_seed(3)
    found: list[Tensor] = []
    state = None
    for length in lengths:
        tokens, targets = torch.randint(VOCAB, (2, length, 3), generator=generator).to(device)
        torch.manual_seed(length)
        output = network.train()(tokens, state)
        loss = network.loss(output.hidden, targets) + output.raw.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        found += [loss.detach(), *(p.grad.clone() for p in network.parameters())]
        optimizer.step()
        state = torch.utils._pytree.tree_map(lambda tensor: tensor.detach(), output.state)
        found += torch.utils._pytree.tree_leaves(state)
        with torch.inference_mode():
            found.append(network.eval()(tokens).hidden.clone())
        with torch.no_grad():
            found.append(network(tokens).hidden.clone())
    return found


@pytest.mark.parametrize(("kind", "options"), NETWORKS)
def test_recorded_networks_train_and_evaluate_as_they_do_kernel_by_kernel(kind, options, monkeypatch, replays):
    lengths = [5, 3, 5, 5, 3, 4, 5, 3]
    torch.manual_seed(1)
    network = kind(VOCAB, **options).double()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    with monkeypatch.context() as patch:
        patch.setattr(module, "_recordable_on", lambda args: None)
        expected = run(network, lengths)
    network.load_state_dict(start)
    for given, wanted in zip(run(network, lengths), expected, strict=True):
        assert torch.equal(given, wanted)
    assert len(replays) > len(lengths)


def test_a_call_is_recorded_when_its_shapes_come_again_and_its_results_are_the_callers_own(replays):
    calls = []

    @recorded
    def double(x: Tensor, times: int, none: None) -> tuple[Tensor, ...]:
        calls.append(tuple(x.shape))
        return (x * times,)

    first = double(torch.ones(2), 2, None)[0]
    assert calls == [(2,)]
    assert not replays
    second = double(torch.full((2,), 3.0), 2, None)[0]
    third = double(torch.full((2,), 4.0), 2, None)[0]
    assert len(replays) == 2
    assert [first.tolist(), second.tolist(), third.tolist()] == [[2.0, 2.0], [6.0, 6.0], [8.0, 8.0]]
    assert double(torch.ones(2), 5, None)[0].tolist() == [5.0, 5.0]
    assert double(torch.ones(3), 2, None)[0].tolist() == [2.0, 2.0, 2.0]
    assert double(torch.ones(2, dtype=torch.float64), 2, None)[0].dtype == torch.float64
    assert len(replays) == 2


def test_of_too_many_recordings_the_one_used_longest_ago_goes(monkeypatch, replays):
    monkeypatch.setattr(module, "_MOST_RECORDINGS", 2)
    recorded_sizes = []
    stand_in = module._Recording
    monkeypatch.setattr(module, "_Recording", lambda *args: recorded_sizes.append(len(args[1][0])) or stand_in(*args))

    @recorded
    def negate(x: Tensor) -> tuple[Tensor, ...]:
        return (-x,)

    for size in (1, 2, 3, 1, 2, 1, 3, 1, 2):
        assert negate(torch.ones(size))[0].tolist() == [-1.0] * size
    assert recorded_sizes == [1, 2, 3, 2]  # 3 takes the place of 2, and 2 that of 3
    assert len(replays) == 6


def test_what_cannot_be_recorded_runs_kernel_by_kernel(monkeypatch, replays):
    @recorded
    def negate(x: Tensor) -> tuple[Tensor, ...]:
        return (-x,)

    def fail(run, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_record", fail)
        negate(torch.ones(1))
        with pytest.warns(UserWarning, match="kernel by kernel, which is slower and right all the same: operation not"):
            assert negate(torch.ones(1))[0].tolist() == [-1.0]
    for size in (1, 2, 2):  # where one could not be recorded, no other is tried
        assert negate(torch.ones(size))[0].tolist() == [-1.0] * size
    assert not replays


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(  # in single precision cells are fused
    ("dtype", "tolerance"), [(torch.float64, {}), (torch.float32, {"rtol": 1e-3, "atol": 1e-4})]
)
@pytest.mark.parametrize(("kind", "options"), NETWORKS)
def test_cuda_graphs_say_what_a_cpu_says(kind, options, dtype, tolerance):
    lengths = [5, 3, 5, 5, 3, 4, 5, 3]
    torch.manual_seed(1)
    network = kind(VOCAB, **{**options, **NO_DROPOUT[kind]}).to(dtype)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    expected = run(network, lengths)
    network.load_state_dict(start)
    for given, wanted in zip(run(network.cuda(), lengths), expected, strict=True):
        torch.testing.assert_close(given.cpu(), wanted, **tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize(("kind", "options"), [(RecurrentHighwayNetwork, RHN), (OrderedNeuronsLSTM, ON_LSTM)])
def test_cuda_graphs_outlive_the_workspaces_of_cublas(kind, options):
    torch.manual_seed(1)
    network = kind(VOCAB, **{**options, **NO_DROPOUT[kind]}).cuda()
    start = {name: value.clone() for name, value in network.state_dict().items()}
    lengths = [5, 5, 5]
    expected = run(network, lengths)
    torch._C._cuda_clearCublasWorkspaces()  # as Lightning does at the end of a fit
    torch.cuda.empty_cache()
    taken = [torch.ones(2**22, device="cuda") for _ in range(32)]
    network.load_state_dict(start)
    for given, wanted in zip(run(network, lengths), expected, strict=True):
        torch.testing.assert_close(given, wanted)
    assert all(bool((each == 1).all()) for each in taken)

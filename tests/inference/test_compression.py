"""Compressed modules do what the modules do."""

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from packed_modules import close, partly, small, sparse
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from lightning_sparse_rnn.inference import compress, compression, packing
from lightning_sparse_rnn.inference.compression import compress_where_it_pays, held_bytes
from lightning_sparse_rnn.inference.layers import PackedLayer
from lightning_sparse_rnn.inference.packing import Packed, pack
from lightning_sparse_rnn.models import (
    AWDLSTM,
    GRU,
    LSTM,
    AWDLSTMMoS,
    Network,
    OrderedNeuronsLSTM,
    RecurrentHighwayNetwork,
)

pytestmark = [
    pytest.mark.usefixtures("_kernel"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

RECURRENT = [
    (nn.LSTM, {}),
    (nn.LSTM, {"proj_size": 13}),
    (nn.GRU, {}),
    (nn.RNN, {}),
    (nn.RNN, {"nonlinearity": "relu"}),
]
NETWORKS: list[Callable[[], Network]] = [
    lambda: LSTM(60, 32, 32, tied=True),
    lambda: GRU(60, 24, 40),
    lambda: AWDLSTM(60, 24, 40, tied=True),
    lambda: RecurrentHighwayNetwork(60, 24, 24, depth=3),
    lambda: RecurrentHighwayNetwork(60, 24, 24, depth=2, coupled=False),
    lambda: OrderedNeuronsLSTM(60, 20, 40, chunk_size=10),
    lambda: AWDLSTMMoS(60, 24, 30, last_size=28, experts=3),
]


@pytest.mark.parametrize("bias", [True, False])
def test_linear(bias: bool) -> None:
    layer = sparse(nn.Linear(50, 30, bias=bias))
    packed = small(layer)
    with torch.no_grad():
        for shape in ((50,), (1, 50), (3, 2, 50), (0, 50)):
            assert close(packed(x := torch.randn(shape)), layer(x))
    assert packed.weight.equal(layer.weight)


def test_embeddings_are_exact() -> None:
    layer = sparse(nn.Embedding(50, 30))
    indices = torch.randint(50, (3, 4))
    assert small(layer)(indices).equal(layer(indices))


def test_embeddings_whose_rows_change_as_they_are_read_stay_dense() -> None:
    layers = sparse(nn.ModuleDict({"embedding": nn.Embedding(50, 30, max_norm=1.0), "linear": nn.Linear(20, 20)}))
    packed, indices = small(layers), torch.arange(9)
    assert type(packed.embedding) is nn.Embedding
    assert packed.embedding(indices).equal(layers.embedding(indices))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("kind", "options"), RECURRENT)
def test_recurrent_layers(
    kind: type[nn.RNNBase], options: dict[str, Any], bidirectional: bool, bias: bool, batch_first: bool
) -> None:
    layers = sparse(kind(20, 30, 2, bias=bias, batch_first=batch_first, bidirectional=bidirectional, **options))
    packed = small(layers)
    sequences = pack_sequence([torch.randn(steps, 20) for steps in (3, 6, 1)], enforce_sorted=False)
    with torch.no_grad():
        for x in (torch.randn(5, 4, 20), torch.randn(1, 1, 20), torch.randn(5, 20), torch.randn(50, 50, 20), sequences):
            expected, state = layers(x)
            output, own = packed(x)
            for _ in range(2):
                assert close(getattr(output, "data", output), getattr(expected, "data", expected))
                assert close(own, state)
                expected, state = layers(x, state)
                output, own = packed(x, own)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells(kind: type[nn.RNNCellBase], bias: bool) -> None:
    cell = sparse(kind(20, 30, bias=bias))
    packed = small(cell)
    with torch.no_grad():
        for x in (torch.randn(4, 20), torch.randn(20), torch.randn(30, 20)):
            state = cell(x)
            assert close(packed(x), state)
            assert close(packed(x, state), cell(x, state))


@pytest.mark.parametrize("make", NETWORKS)
def test_networks(make: Callable[[], Network]) -> None:
    network = sparse(make())
    packed = small(network)
    with torch.inference_mode():
        for steps, columns in ((1, 1), (7, 3), (2, 25)):
            state = own = None
            for _ in range(3):
                tokens, targets = torch.randint(60, (2, steps, columns))
                expected, output = network(tokens, state), packed(tokens, own)
                state, own = expected.state, output.state
                assert close(output.hidden, expected.hidden)
                assert close(own, state)
                assert close(packed.log_probs(output.hidden), network.log_probs(expected.hidden))
                assert close(packed.loss(output.hidden, targets), network.loss(expected.hidden, targets))


@pytest.mark.parametrize(("dtype", "share"), [(None, 0.40), (torch.bfloat16, 0.24), (torch.int8, 0.17)])
def test_dtypes_round_weights_and_nothing_else(dtype: torch.dtype | None, share: float) -> None:
    network = sparse(LSTM(500, 64, 64, tied=True))
    packed = small(network, dtype)
    rounded = copy.deepcopy(network)
    with torch.no_grad():
        for name, parameter in rounded.named_parameters():
            if parameter.dim() == 2:
                path, _, last = name.rpartition(".")
                parameter.copy_(getattr(packed.get_submodule(path), last))
        tokens = torch.randint(500, (4, 2))
        assert close(packed(tokens).hidden, rounded(tokens).hidden)
    assert held_bytes(packed) <= share * held_bytes(network)


def test_what_does_not_pay_stays_dense_and_the_module_stays_as_it_is() -> None:
    module = nn.Sequential(nn.Linear(600, 900), nn.Linear(900, 600), nn.ReLU(), nn.Linear(600, 4))
    sparse(module)
    with torch.no_grad():
        module[1].weight.fill_(1.0)
    before = copy.deepcopy(module.state_dict())
    packed = compress(module)
    assert [isinstance(layer, PackedLayer) for layer in packed] == [True, False, False, False]
    assert not any(p.requires_grad for p in packed.parameters())
    assert all(p.requires_grad for p in module.parameters())
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())
    x = torch.randn(3, 600)
    assert torch.allclose(packed(x), module(x), atol=1e-3)


def test_recurrent_layers_of_a_few_hundred_units_are_packed() -> None:
    module = nn.ModuleList([nn.LSTM(256, 256), nn.LSTM(255, 255), nn.Linear(600, 600), nn.LSTM(31, 256)])
    packed = compress(sparse(module))
    assert [isinstance(layer, PackedLayer) for layer in packed] == [True, False, False, True]
    assert list(packed[3].packed) == ["weight_hh_l0"]


def test_weights_of_few_rows_or_columns_stay_dense_unless_small_ones_are_asked_for() -> None:
    shapes = [(1100, 511), (1100, 512), (31, 20_000), (32, 20_000)]
    flat = sparse(nn.Sequential(*(nn.Linear(*shape) for shape in shapes)))
    assert [isinstance(layer, PackedLayer) for layer in compress(flat)] == [False, True, False, True]
    assert all(isinstance(layer, PackedLayer) for layer in small(flat))


def test_many_vectors_in_inference_mode_compiled_exported_and_not_contiguous() -> None:
    layer = sparse(nn.Linear(300, 200))
    packed, x = small(layer), torch.randn(300, 400).t()
    with torch.inference_mode():
        assert close(packed(x), layer(x))
        assert close(packed(x[::3, :]), layer(x[::3, :]))
    with torch.no_grad():
        x = x.contiguous()
        made = (torch.compile(packed, backend="eager"), torch.export.export(packed, (x,)).module())
        assert all(module(x).equal(packed(x)) for module in made)


def test_the_loss_of_a_mixture_by_packed_rows_is_that_of_the_rows() -> None:
    network = sparse(AWDLSTMMoS(1500, 24, 30, last_size=28, experts=3))
    for dtype in (None, torch.int8):
        packed, again = small(network, dtype), copy.deepcopy(network)
        with torch.no_grad():
            again.decoder.weight.copy_(packed.decoder.weight)
            tokens, targets = torch.randint(1500, (2, 5, 3))
            hidden = network(tokens).hidden
            for name in ("latent", "prior"):
                setattr(packed, name, getattr(again, name))
            assert torch.allclose(packed.loss(hidden, targets), again.loss(hidden, targets), atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dense", ["ih", "hh"])
@pytest.mark.parametrize(("kind", "options"), RECURRENT)
def test_layers_with_some_weights_packed(
    kind: type[nn.RNNBase], options: dict[str, Any], dense: str, bias: bool
) -> None:
    layers = partly(kind, dense, num_layers=2, bidirectional=True, bias=bias, batch_first=True, **options)
    packed = small(layers)
    assert not any(name.startswith(f"weight_{dense}") for name in packed.packed)
    # As many steps as one by one take, and as torch's own layer takes; then equally long sequences, in another order.
    sequences = pack_sequence([torch.randn(20, 20) for _ in range(3)], enforce_sorted=False)
    sequences = sequences._replace(sorted_indices=torch.tensor([2, 0, 1]), unsorted_indices=torch.tensor([1, 2, 0]))
    with torch.no_grad():
        for x in (torch.randn(4, 5, 20), torch.randn(20, 4, 20).transpose(0, 1), sequences):
            expected, state = layers(x)
            output, _ = packed(x)
            assert close(getattr(output, "data", output), getattr(expected, "data", expected))
            parts = state if kind is nn.LSTM else (state,)
            parts = tuple(part.transpose(0, 1).contiguous().transpose(0, 1) for part in parts)  # not contiguous
            state = parts if kind is nn.LSTM else parts[0]
            (output, own), (expected, state) = packed(x, state), layers(x, state)
            assert close(getattr(output, "data", output), getattr(expected, "data", expected))
            assert close(own, state)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_no_columns(kind: type[nn.RNNBase]) -> None:
    for layers in (sparse(kind(20, 30, bidirectional=True)), partly(kind, "hh")):
        for steps in (5, 50):
            x = torch.randn(steps, 0, 20)
            with torch.no_grad():
                assert close(small(layers)(x), layers(x))


def test_under_autocast_packed_products_stay_in_float32() -> None:
    cases = [(sparse(nn.LSTM(20, 30, 2)), (50, 50, 20))]
    cases += [(partly(nn.LSTM, dense), (20, 4, 20)) for dense in ("ih", "hh")]
    cases += [(nn.Sequential(sparse(nn.Linear(20, 30))), (3, 20))]
    for module, shape in cases:
        packed, x = small(module), torch.randn(shape)
        with torch.no_grad():
            expected = module(x)
            with torch.autocast("cpu", torch.bfloat16):
                output = packed(x)
        output, expected = (each if isinstance(each, Tensor) else each[0] for each in (output, expected))
        assert output.dtype == torch.float32
        assert torch.allclose(output, expected, atol=1e-2)


def test_hooks_and_subclasses_keep_a_layer_dense() -> None:
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    hooked = nn.Linear(20, 30)
    hooked.register_forward_hook(lambda *_: None)
    patched = nn.Linear(30, 30)
    patched.forward = lambda x: 2 * x  # type: ignore[method-assign]
    packed = small(sparse(nn.Sequential(nn.Linear(20, 20), Doubled(20, 20), hooked, patched)))
    assert [type(layer).__name__ for layer in packed] == ["PackedLinear", "Doubled", "Linear", "Linear"]


def test_a_tied_weight_is_packed_once() -> None:
    packed = small(sparse(LSTM(60, 32, 32, tied=True)))
    assert packed.decoder.packed["weight"] is packed.embedding.packed["weight"]
    weights = [part for part in packed.modules() if isinstance(part, Packed)]
    assert len(weights) == 5


def test_copies_and_pickles() -> None:
    network = small(sparse(LSTM(60, 32, 32, tied=True)))
    tokens = torch.randint(60, (3, 2))
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    for again in (copy.deepcopy(network), torch.load(file, weights_only=False)):
        assert again(tokens).hidden.equal(network(tokens).hidden)


def test_copies_made_in_inference_mode_evaluate_there_and_outside() -> None:
    packed, x = small(sparse(nn.Linear(20, 30))), torch.randn(2, 20)
    with torch.inference_mode():
        again = copy.deepcopy(packed)
        assert again(x).equal(packed(x))
    with torch.no_grad():
        assert again(x).equal(packed(x))


def test_weights_of_two_dtypes() -> None:
    layer = sparse(nn.LSTM(20, 30))
    dtypes = {"weight_ih_l0": torch.int8, "weight_hh_l0": torch.float32}
    packed = compression.replaced(layer, {name: pack(layer.get_parameter(name), dtypes[name]) for name in dtypes})
    with torch.no_grad():
        layer.weight_ih_l0.copy_(packed.weight_ih_l0)
        x = torch.randn(3, 30, 20)
        assert close(packed(x), layer(x))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("columns", [3, 30])
def test_sequences_that_are_not_finite_act_as_in_torchs_layers(kind: type[nn.RNNBase], columns: int) -> None:
    layer, x = sparse(kind(20, 30)), torch.randn(4, columns, 20)
    x[1, 0, 3], x[2, 1, 5], x[1, 2, 7] = torch.inf, torch.nan, -1e30
    with torch.no_grad():
        (output, _), (expected, _) = small(layer)(x), layer(x)
    assert torch.allclose(output, expected, atol=2e-6, equal_nan=True)


def test_where_it_pays() -> None:
    dense, module = nn.Linear(600, 900), sparse(nn.Linear(600, 900))
    assert compress_where_it_pays(dense) is dense
    assert isinstance(compress_where_it_pays(module), PackedLayer)
    doubled = module.double()
    assert compress_where_it_pays(doubled) is doubled


def test_where_it_pays_each_weight_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def watched(look: Callable[..., Any]) -> Callable[..., Any]:
        def found(given: Any, *more: Any) -> Any:
            (weight,) = given.values() if isinstance(given, dict) else (given,)
            looked.append((look.__name__, weight.data_ptr()))
            return look(given, *more)

        return found

    monkeypatch.setattr(compression, "worth_packing", watched(compression.worth_packing))
    monkeypatch.setattr(packing, "check_finite", watched(packing.check_finite))
    layers = nn.Sequential(sparse(nn.Linear(600, 900)), sparse(nn.Linear(900, 600)))
    assert isinstance(compress_where_it_pays(layers)[0], PackedLayer)
    assert len(looked) == len(set(looked)) == 4


def test_of_small_weights_alone_a_warning_says_that_nothing_is_packed() -> None:
    layers, x = nn.Sequential(sparse(nn.GRU(20, 30))).train(), torch.randn(3, 2, 20)
    dense = nn.Linear(600, 900)  # is not what the warning is about
    with pytest.warns(UserWarning, match=r"the largest sparse one, 0.weight_hh_l0, is 90 × 30\.") as warned:
        same = compress(layers.append(dense))
    assert [warning.filename for warning in warned] == [__file__]
    with torch.no_grad():
        assert close(same[0](x), layers[0](x))
    assert not same.training
    assert layers.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compress_where_it_pays(layers) is layers


def test_weights_that_are_not_finite_are_refused_by_name_and_stay_dense_where_packing_is_a_matter_of_speed() -> None:
    layers = nn.Sequential(sparse(nn.Linear(600, 900)), nn.ReLU(), sparse(nn.Linear(900, 600)))
    with torch.no_grad():
        layers[2].weight[0, :3] = torch.tensor([torch.nan, torch.inf, torch.nan])
    with pytest.raises(ValueError, match=r"got 2.weight with 2 NaN and 1 infinite of its 540,000 values"):
        compress(layers)
    assert compress_where_it_pays(layers) is layers


def test_mistakes() -> None:
    module = sparse(nn.Linear(600, 900))
    with pytest.raises(TypeError, match=r"Expected a torch.nn.Module, got dict"):
        compress({})  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"Expected a module with sparse weights, got one in which 100% of each of"):
        compress(nn.Linear(600, 900))
    with pytest.raises(ValueError, match="got one with no layer whose weights can be packed"):
        compress(nn.ReLU())
    with pytest.raises(TypeError, match=r"got weight of torch.float64 on cpu. Call `module.float\(\).cpu\(\)` first"):
        compress(copy.deepcopy(module).double())
    with pytest.raises(TypeError, match=r"got weight of torch.float32 on meta"):
        compress(copy.deepcopy(module).to("meta"))
    with pytest.raises(ValueError, match=r"Expected `dtype` to be one of torch.float32, .*, got torch.float16"):
        compress(module, torch.float16)
    packed = compress(module)
    with pytest.raises(ValueError, match="got one that is compressed"):
        compress(packed)
    x = torch.randn(2, 600)
    with pytest.raises(RuntimeError, match="packed weights compute none, got one that requires them"):
        packed(x.requires_grad_())
    x = x.detach()
    with pytest.raises(RuntimeError, match=r"got one in training mode. Call `.eval\(\)`"):
        packed.train()(x)
    packed.eval()
    with pytest.raises(TypeError, match=r"Expected an input of torch.float32 on the CPU, got torch.float64"):
        packed(x.double())
    with pytest.raises(RuntimeError, match="Expected packed weights to stay on the CPU and take float32"):
        packed.double()
    with pytest.raises(AttributeError, match="Expected the packed weight 'weight' to stay as it is"):
        packed.weight = nn.Parameter(torch.zeros(900, 600))
    with pytest.raises(RuntimeError, match="is packed and takes no other weights"):
        packed.load_state_dict(module.state_dict())
    with pytest.raises(ValueError, match=r"Expected an input of 600 features, got one of shape \(2, 300\)"):
        packed(x[:, :300])
    with pytest.raises(ValueError, match="sparse weights, got one in which"):
        compress(nn.Linear(600, 1), smallest=0)
    layers = small(sparse(nn.LSTM(20, 30)))
    with pytest.raises(ValueError, match=r"Expected at least one step, got an input of shape \(0, 4, 20\)"):
        layers(torch.randn(0, 4, 20))
    with pytest.raises(ValueError, match="Expected an input of 20 features, got 21"):
        layers(torch.randn(60, 60, 21))
    cell = small(sparse(nn.GRUCell(20, 30)))
    for shape in ((3, 30), (8, 15)):
        with pytest.raises(ValueError, match=r"Expected a state of shapes \[\(4, 30\)\]"):
            cell(torch.randn(4, 20), torch.zeros(shape))
    with pytest.raises(TypeError, match=r"Expected an input of torch.float32 on the CPU, got torch.bfloat16"):
        cell(torch.randn(4, 20), torch.zeros(4, 30, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"Expected a state of shapes \[\(1, 4, 30\), \(1, 4, 30\)\]"):
        layers(torch.randn(5, 4, 20), (torch.zeros(1, 3, 30), torch.zeros(1, 3, 30)))

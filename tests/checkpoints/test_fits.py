"""A checkpoint of another module is refused, by what differs."""

from __future__ import annotations

import pytest
import torch
from lightning_runs import language_model
from torch import nn

from lightning_sparse_rnn.checkpoints.fits import check_fits
from lightning_sparse_rnn.models import LanguageModel


def test_a_checkpoint_of_another_model_is_refused_by_what_differs() -> None:
    module = language_model()
    checkpoint = {"state_dict": module.state_dict()}
    check_fits(checkpoint, language_model(seed=5))

    network = dict(module.hparams["network"])
    with pytest.raises(ValueError, match="of another model than this LanguageModel") as caught:
        check_fits(checkpoint, LanguageModel({**network, "hidden_size": 7, "num_layers": 1}, vocab_size=22))
    message = str(caught.value)
    assert "only it has network.layers.weight_ih_l1 (24, 6)" in message
    assert "shapes differ in network.decoder.weight, (22, 6) there and (22, 7) here" in message
    assert "lacks" not in message
    with pytest.raises(ValueError, match=r"it lacks network\.layers\.weight_ih_l2 \(24, 6\)") as caught:
        check_fits(checkpoint, LanguageModel({**network, "num_layers": 6}, vocab_size=22))
    assert "and 8 more" in str(caught.value)


def test_without_strict_only_shapes_must_agree() -> None:
    checkpoint = {"state_dict": {"weight": torch.zeros(2, 3), "other": torch.zeros(1), "_extra_state": "no tensor"}}
    check_fits(checkpoint, nn.Linear(3, 2), strict=False)
    with pytest.raises(ValueError, match=r"Linear: it lacks bias \(2,\); only it has other \(1,\)\. Make"):
        check_fits(checkpoint, nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"Linear: shapes differ in weight, \(2, 3\) there and \(2, 4\) here\. Make"):
        check_fits(checkpoint, nn.Linear(4, 2), strict=False)

"""The method in a training loop of your own, without Lightning: a topology, SNT-ASGD, and five lines more."""

import torch
from any_trainer import WaveClassifier, waves
from torch import nn

from lightning_sparse_rnn import SNTASGD
from lightning_sparse_rnn.sparsity import PruneRate, SparseTopology

EPOCHS, COLUMNS = 16, 50

if __name__ == "__main__":
    torch.manual_seed(0)
    model = WaveClassifier()  # any module
    (inputs, labels), validation = waves(2000, 0).tensors, waves(500, 1).tensors
    topology = SparseTopology(model, sparsity=0.9, seed=0)  # which masks the parameters at once
    optimizer = SNTASGD(model.parameters(), lr=1.0, nonmono=1)
    optimizer.set_masks(topology.masks)
    rate = PruneRate(0.5, 0.005, "cosine")

    for epoch in range(EPOCHS):
        if epoch > 0:
            update = topology.update(rate.at(epoch / EPOCHS))
            # Averages are to forget what has just been regrown. With another optimizer, so is its momentum: instead of
            # this line, `lightning_sparse_rnn.optim.masked.forget(optimizer, topology.masks, update.born)`, and after
            # each of its steps `topology.apply_masks()`.
            optimizer.set_masks(topology.masks, update.born)
        for batch in torch.randperm(len(inputs)).split(COLUMNS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with optimizer.averaged_weights(), torch.no_grad():
            scores = model(validation[0])
            loss = nn.functional.cross_entropy(scores, validation[1])
            accuracy = (scores.argmax(1) == validation[1]).float().mean()
        optimizer.observe(loss)  # from when this returns True, `averaged_weights` shows averages
        print(f"epoch {epoch + 1}: loss {loss:.3f}, accuracy {accuracy:.3f}, averaging {optimizer.averaging}")
    print(f"{topology.live_weights} of {topology.total_weights} weights live: {topology.gate_densities()}")

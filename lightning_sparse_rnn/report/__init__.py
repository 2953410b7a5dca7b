"""``sparse-rnn-report``: what runs have done, side by side, as one page."""

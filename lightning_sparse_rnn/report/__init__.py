"""``sparse-rnn-report``: compares runs on one page."""

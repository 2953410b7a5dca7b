"""The picture of a run: what stands on it."""

from matplotlib.figure import Figure

from lightning_sparse_rnn.runs.picture import draw_run

ROWS = [
    {"epoch": epoch, "train_ppl": 300 - 40 * epoch, "val_ppl": 250 - 10 * epoch, "averaging": 0} for epoch in (0, 1)
]
RESULTS = {"seed": 3, "test_ppl": 234.56, "unigram_ppl": 400.04, "live_weights": 1234, "total_weights": 5678}


def _texts(figure: Figure) -> tuple[str, dict[str, list[float]]]:
    axes = figure.subfigs[0].axes[0]
    return axes.get_title(loc="left"), {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}


def test_it_names_the_settings_the_test_score_and_the_unigram_line() -> None:
    title, lines = _texts(draw_run(ROWS, [], RESULTS, {"method": "selfish", "model": "small_lstm", "data": "ptb"}))
    assert title == "selfish, small_lstm, ptb, seed 3\n1,234 of 5,678 weights live"
    assert lines == {
        "training": [300, 260],
        "validation": [250, 240],
        "unigram model: 400.0": [400.04, 400.04],
        "test: 234.56": [234.56],
    }


def test_a_run_that_goes_on_and_one_without_text_have_less() -> None:
    title, lines = _texts(draw_run(ROWS, []))
    assert (title, list(lines)) == ("Perplexity", ["training", "validation"])
    title, lines = _texts(draw_run(ROWS, [], {**RESULTS, "unigram_ppl": None}))
    assert (title.splitlines()[0], list(lines)) == ("seed 3", ["training", "validation", "test: 234.56"])

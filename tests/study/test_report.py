"""Table, pictures and page, drawn from made-up results."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib as mpl
import pytest
from rich.console import Console
from synthetic import EPOCHS, candidate, make_outcome, make_plan, make_results

from onepass.study.errors import StudyError
from onepass.study.figures import PICTURES, colours, png
from onepass.study.plan import Trial
from onepass.study.report import load, render, write
from onepass.study.results import Finished, Results, Subject, remarks, show, tuned_lr, verdict_sentence
from onepass.study.table import print_results


@pytest.fixture(scope="module")
def results():
    return make_results()


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    render(results, folder)
    return folder


def compare_metrics(higher_is_better=True, **metrics):
    """Results of candidates whose final runs end at the metrics given; None: diverged."""
    candidates = tuple(candidate(name) for name in metrics)
    count = len(next(iter(metrics.values())))
    plan = make_plan(candidates, grid=(0.01, 0.1), seeds=tuple(range(count)))
    finished = [Finished(trial, make_outcome(0.5)) for trial in plan.tuning]
    for each, ends in zip(candidates, metrics.values(), strict=True):
        for seed, end in enumerate(ends):
            outcome = make_outcome(end or 0.5, diverged=end is None)
            finished.append(Finished(Trial("final", each, 0.01, seed), outcome))
    subject = Subject("toy", "toy", "accuracy" if higher_is_better else "mse", higher_is_better)
    return Results(subject, plan, tuple(finished), make_results().environment, "onepass compare toy")


def test_results_survive_json(results, folder):
    assert load(folder).to_json() == results.to_json()
    assert load(folder).rows == results.rows


def test_json_holds_every_trial_with_its_history_and_what_it_ran_on(results, folder):
    data = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    assert len(data["trials"]) == results.plan.total == 190
    complete = [trial for trial in data["trials"] if not trial["outcome"]["diverged"]]
    assert all(len(trial["outcome"]["history"]) == EPOCHS for trial in complete)
    assert data["plan"]["seeds"] == list(range(10))
    assert set(data["environment"]["versions"]) == {"python", "torch", "numpy", "onepass"}
    assert data["analysis"]["verdict"] == verdict_sentence(results)
    assert data["analysis"]["ranking"][0]["code"].startswith("opt = onepass.")


def test_a_diverged_run_is_null_in_json_and_infinite_again_when_read(results, folder):
    data = json.loads((folder / "results.json").read_text())
    yogi = next(row for row in data["analysis"]["ranking"] if row["optimizer"] == "Yogi")
    assert (yogi["diverged"], yogi["median"], yogi["metrics"].count(None)) == (6, None, 6)
    row = next(row for row in load(folder).rows if row.label == "Yogi")
    assert row.median == -float("inf")


def test_results_of_another_format_are_refused(results):
    with pytest.raises(StudyError, match="format 'something else'"):
        Results.from_json({**results.to_json(), "format": "something else"})


def test_reading_where_nothing_was_written(tmp_path):
    with pytest.raises(StudyError, match="does not exist; run onepass compare first"):
        load(tmp_path)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_picture_is_a_png_and_the_same_every_time(name, higher_is_better):
    data = make_results(higher_is_better)
    before = dict(mpl.rcParams)
    content = png(PICTURES[name], data)
    assert content.startswith(b"\x89PNG")
    assert content == png(PICTURES[name], data)
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_can_be_drawn_of_little_and_of_ruin(name):
    for odd in (
        compare_metrics(Adam=[0.5, 0.5], SGD=[0.5, 0.5]),
        compare_metrics(Adam=[None, None], SGD=[None, None]),
        compare_metrics(Adam=[0.5, None], SGD=[0.9, 0.9], Yogi=[None, None]),
    ):
        assert png(PICTURES[name], odd).startswith(b"\x89PNG")


def test_a_run_that_diverged_in_its_first_epoch_can_be_drawn(results):
    ruined = [
        replace(each, outcome=replace(each.outcome, history=())) if each.outcome.diverged else each
        for each in compare_metrics(Adam=[None, None], SGD=[0.9, 0.8]).finished
    ]
    for picture in PICTURES.values():
        assert png(picture, replace(compare_metrics(Adam=[None, None], SGD=[0.9, 0.8]), finished=tuple(ruined)))


def test_colours_belong_to_the_optimizer_and_not_to_its_place(results):
    palette = colours(results)
    assert len(set(palette.values())) == 10
    assert list(palette) == [each.label for each in results.plan.candidates]


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.open = [], []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_itself(folder):
    page = (folder / "report.html").read_text()
    parser = Links()
    parser.feed(page)
    assert not parser.open
    assert len(parser.found) == len(PICTURES)
    assert all(link.startswith("data:image/png;base64,") for link in parser.found)
    assert not re.search(r"https?://|@import|url\(|<script", page)


def test_the_page_says_what_was_found_and_how(results, folder):
    page = html.unescape(re.sub(r"data:[^\"]*", "", (folder / "report.html").read_text()))
    assert f"<h1>{verdict_sentence(results)}</h1>" in page
    assert "opt = onepass.NAdam(model.parameters(), lr=" in page
    for words in (
        "10 seeds (0 to 9)",
        "seed 1000000",
        "torch 2.13.0",
        "Bonferroni",
        "cosine",
        "onepass compare digits",
    ):
        assert words in page
    for picture in PICTURES.values():
        assert picture.title in page


def test_the_page_escapes_what_a_user_names(results):
    odd = replace(results, subject=replace(results.subject, notes="<script>alert(1)</script>"))
    from onepass.study.report import to_html

    page = to_html(odd, dict.fromkeys(PICTURES, b""))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "page"
    path.write_text("old")
    with pytest.raises(TypeError):
        write(path, "not bytes")
    assert path.read_text() == "old"
    write(path, b"new")
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["page"]


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_has_a_line_for_each_optimizer(results, width, tmp_path):
    console = Console(width=width, record=True, file=open(tmp_path / "out", "w"))  # noqa: SIM115
    print_results(results, tmp_path / "report.html", console)
    text = console.export_text()
    console.file.close()
    for row in results.rows:
        line = next(line for line in text.splitlines() if f" {row.label} " in line)
        assert show(row.median) in line
        assert f"{row.diverged}/10" in line
    assert verdict_sentence(results) in " ".join(text.split())
    assert max(map(len, text.splitlines()[:12])) <= width


CLEAR = [0.90 + 0.001 * seed for seed in range(10)]
LOWER = [each - 0.1 for each in CLEAR]


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"Adam": CLEAR, "SGD": LOWER}, "Adam wins on toy: .* ahead of the other one by more than chance explains"),
        ({"Adam": CLEAR, "SGD": LOWER, "Yogi": LOWER}, "Adam wins .* ahead of each of the other 2"),
        ({"Adam": CLEAR, "SGD": CLEAR}, "No winner: the 2 optimizers cannot be told apart on toy"),
        (
            {"Adam": CLEAR, "SGD": CLEAR, "Yogi": LOWER},
            "No single winner on toy: Adam and SGD cannot .* other one is behind",
        ),
        ({"Adam": CLEAR[:3], "SGD": LOWER[:3]}, "No verdict yet: Adam leads .* at least 6 seeds, and there are 3"),
        ({"Adam": [None] * 6 + CLEAR[:4], "SGD": [None] * 10}, "No verdict: at least half .* diverged"),
        ({"Adam": [None] * 10, "SGD": CLEAR}, "SGD wins on toy"),
    ],
)
def test_the_verdict_in_words(metrics, says):
    assert re.fullmatch(f"{says}.*", verdict_sentence(compare_metrics(**metrics)))


def test_a_lower_metric_can_be_the_better_one():
    results = compare_metrics(higher_is_better=False, Adam=LOWER, SGD=CLEAR)
    assert results.verdict.winner == "Adam"
    best = results.rows[0]
    assert best.low <= best.median <= best.high
    assert best.median == pytest.approx(0.8045)


def tuning(*ends):
    """Trials at rates 0.001, 0.01, ... from (metric, loss) each; None: diverged."""
    outcomes = []
    for place, end in enumerate(ends):
        outcome = make_outcome(0.5, diverged=end is None)
        if end is not None:
            last = replace(outcome.history[-1], validation_metric=end[0], validation_loss=end[1])
            outcome = replace(outcome, history=(*outcome.history[:-1], last))
        outcomes.append(Finished(Trial("tuning", candidate("Adam"), 10.0 ** (place - 3), 0), outcome))
    return outcomes


def test_tuning_takes_the_best_end_then_the_lower_loss_then_the_lower_rate():
    higher, lower = Subject("", "", "accuracy", True), Subject("", "", "mse", False)
    assert tuned_lr(tuning((0.8, 1), (0.9, 1), (0.7, 1)), higher) == 0.01
    assert tuned_lr(tuning((0.8, 1), (0.9, 1), (0.7, 1)), lower) == 0.1
    assert tuned_lr(tuning((0.9, 2), (0.9, 1), (0.9, 3)), higher) == 0.01
    assert tuned_lr(tuning((0.9, 1), (0.9, 1)), higher) == 0.001
    assert tuned_lr(tuning((0.1, 9), None, None), higher) == 0.001
    assert tuned_lr(tuning(None, None), higher) == 0.001


def test_tuning_judges_the_end_and_not_the_best_epoch():
    peaked = tuning((0.8, 1), (0.9, 1))
    epochs = list(peaked[0].outcome.history)
    epochs[5] = replace(epochs[5], validation_metric=0.99)
    peaked[0] = replace(peaked[0], outcome=replace(peaked[0].outcome, history=tuple(epochs)))
    assert tuned_lr(peaked, Subject("", "", "accuracy", True)) == 0.01


def test_one_diverged_seed_spoils_a_learning_rate():
    high = tuning((0.8, 1), (0.9, 1))
    again = tuning((0.8, 1), None)
    assert tuned_lr([*high, *again], Subject("", "", "accuracy", True)) == 0.001


def test_remarks_name_edges_and_twins():
    said = remarks(compare_metrics(Adam=CLEAR, AdamW=CLEAR, SGD=LOWER))
    assert "Adam (0.01, the lowest)" in said[0]
    assert said[1] == "Adam and AdamW made the same runs: with these settings they are one rule."

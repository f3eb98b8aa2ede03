"""What a reader of the page sees first."""

import re

from support.lab import NO_FIGURES
from support.made_runs import compared, make_run

from analysis.pages import report


def test_the_faces_come_first_then_the_losses_the_numbers_and_the_answers(comparison):
    page = report.html(comparison, NO_FIGURES)
    places = re.findall(r'<section id="(\w+)"', page)
    assert places[:4] == ["samples", "losses", "results", "answers"]
    assert re.findall(r'<a href="#(\w+)">\w+</a>', page.partition("</nav>")[0]) == places


def test_a_newcomer_with_one_run_finds_unasked_questions_in_one_folded_line(tmp_path):
    make_run(tmp_path, "tuned_lr")
    comparison = compared(tmp_path)
    unasked = [answer for answer in comparison.answers if not answer.is_asked]
    assert 1 < len(unasked) < len(comparison.answers)
    page = report.html(comparison, NO_FIGURES)
    cards, _, folded = page.partition('<section id="answers">')[2].partition("<details>")
    assert folded.startswith(f"<summary>{len(unasked)} questions that these runs can't answer yet")
    assert cards.count('<article class="card">') == len(comparison.answers) - len(unasked)
    for answer in unasked:
        assert answer.text.split(",")[0] in folded.partition("</details>")[0]
    assert 'make study EXPS="baseline regularized tuned_lr hires_128" SEEDS=3' in folded

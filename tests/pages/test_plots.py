"""Figures: what can be read off the axes."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support.planned_runs import ROUTES, made

from analysis.compare.plan import DOSE
from analysis.pages import arm_figures, loss_plots, plots
from dcgan.tools.loss_style import COLORS, smoothing

FOUR = ["baseline", "regularized", "tuned_lr", "hires_128"]


@pytest.fixture
def axis():
    with plots.drawing():
        yield plots.figure(3).subplots()


def legend(axis):
    return [text.get_text() for text in axis.get_figure().legends[0].get_texts()]


def scores(**values):
    """Snapshots at steps 100, 200, ...: a row of values a seed of each experiment."""
    return pd.DataFrame(
        [
            (name, seed, 100 * (place + 1), float(value))
            for name, seeds in values.items()
            for seed, row in enumerate(seeds)
            for place, value in enumerate(row)
        ],
        columns=["experiment", "seed", "step", "score"],
    )


def draw_quality(axis, rows, **options):
    looks = plots.styles(list(rows["experiment"]))
    return plots.quality(axis, rows, "score", looks, title="FID", label="FID", **options)


@pytest.mark.parametrize("names", [2, 9])
def test_an_axis_keeps_its_size_however_many_recipes_the_legend_names(axis, names):
    draw_quality(axis, scores(**{f"a_recipe_with_a_long_name_and_settings_{i}": [[3, 2, 1]] for i in range(names)}))
    figure = axis.get_figure()
    figure.draw_without_rendering()
    assert axis.get_position().height * figure.get_figheight() > 1.2


def losses(n=300, height=1.0, rng=None):
    draw = rng.exponential if rng else lambda size: np.full(size, height)
    d, g = draw(size=n), draw(size=n) if rng else np.full(n, 2 * height)
    return loss_plots.Losses("tuned_lr", 0, pd.DataFrame({"step": np.arange(1, n + 1), "loss_d": d, "loss_g": g}))


def test_an_experiment_keeps_its_looks_when_others_are_missing_or_come_first():
    whole = plots.styles([*FOUR, "mine"])
    for few in (["tuned_lr"], ["hires_128", "mine", "baseline"], ["another", "mine", *FOUR]):
        assert all(plots.styles(few)[name] == whole[name] for name in few if name in FOUR)
    assert plots.styles(["tuned_lr", "mine"])["mine"] == whole["mine"]


def test_twenty_experiments_look_different_ten_without_colour_too_and_none_like_a_network():
    looks = plots.styles([*FOUR, *map(str, range(16))])
    assert len({(style.color, style.marker) for style in looks.values()}) == 20
    looks = plots.styles([*FOUR, *(f"other {i}" for i in range(6))]).values()
    assert len({style.color for style in looks}) == len({style.marker for style in looks}) == 10
    assert not set(COLORS.values()) & {style.color for style in looks}


def test_every_crossing_is_a_tick_and_ten_times_the_steps_make_paler_ones(axis):
    crossings = np.array([10.5, 11.5, 250.25])
    for steps in (5_000, 50_000):
        loss_plots.crossing_strip(axis, crossings, steps)
    dark, pale = axis.collections
    assert [segment[0][0] for segment in dark.get_segments()] == crossings.tolist()
    assert pale.get_alpha() < dark.get_alpha()


def test_the_zoom_has_a_dot_a_crossing_and_counts_them_against_the_reference(axis):
    frame = pd.DataFrame({"step": range(4), "loss_d": 1.0, "loss_g": [2, 0.5, 2, 2]})
    loss_plots.crossing_zoom(axis, loss_plots.Losses("x", 0, frame), 8, loss_plots.Limits(2, (0.1, 3)))
    assert axis.lines[-1].get_ydata().tolist() == [1, 1]
    title = axis.get_title(loc="left")
    assert title.startswith("steps 0 to 3: 2 crossings")
    assert "there would be 8, ratio 0.25" in title


def test_runs_share_their_heights_and_a_run_that_leaves_them_says_how_far():
    runs = [losses(500, height=1.0), losses(500, height=1.1), losses(300, height=30)]
    limits = loss_plots.shared_limits(runs)
    with plots.drawing():
        figure = plots.figure(5)
        loss_plots.losses(figure, runs[-1], limits)
    curves = figure.axes[0]
    assert curves.get_xlim() == (0, 300), "its own steps"
    assert 2.2 < curves.get_ylim()[1] < 10
    assert any("up to 60" in text.get_text() for text in curves.texts)
    assert curves.get_title(loc="left").startswith("tuned_lr, seed 0\nthe curves cross 0 times in 300 steps")


def test_a_short_run_is_smoothed_over_fewer_steps_than_a_long_one():
    assert [smoothing(steps) for steps in (1, 40, 500, 5_000)] == [1, 2, 25, 50]


def test_forty_thousand_steps_of_losses_stay_below_a_megabyte_of_svg():
    with plots.drawing():
        figure = plots.figure(5)
        run = losses(40_000, rng=np.random.default_rng(0))
        loss_plots.losses(figure, run, loss_plots.shared_limits([run]))
        files = plots.encoded(figure)
    assert len(files["svg"]) < 1_000_000
    assert Image.open(io.BytesIO(files["png"])).size == (780, 750)


def test_several_seeds_are_thin_lines_and_their_mean_over_shared_steps_a_thick_one(axis):
    rows = scores(baseline=[[50, 40, 30], [70, 60]], tuned_lr=[[30, 20]])
    draw_quality(axis, rows, floor=(8.0, "real against real (n = 2,500)"))
    drawn = [line for line in axis.lines if len(line.get_xdata())]
    thick = [line.get_ydata().tolist() for line in drawn if line.get_linewidth() > 2]
    thin = [line.get_ydata().tolist() for line in drawn if line.get_linewidth() < 1]
    assert thick == [[60, 50], [30, 20]]
    assert thin == [[50, 40, 30], [70, 60], [30, 20]]
    assert axis.lines[-1].get_ydata()[0] == 8.0
    assert legend(axis) == ["baseline (n = 2 seeds)", "tuned_lr (one seed)", "real against real (n = 2,500)"]


LONG = "slow_d_only+duration_multiplier=2.0,images=500,snapshots=20"


@pytest.mark.parametrize(
    "names", [["baseline", "tuned_lr"], ["hires_128", "hires_128_equal_lr", "hires_128_longer"], ["baseline", LONG]]
)
def test_a_legend_stays_within_its_figure(names):
    with plots.drawing():
        figure = plots.figure(4.1)
        rows = scores(**{name: [[50, 40]] for name in names})
        draw_quality(figure.subplots(), rows, floor=(8.0, "real against real (n = 5,000)"))
        plots.encoded(figure)
        box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(("values", "scale"), [([0.2, -0.001], "linear"), ([200, 20], "log")])
def test_only_a_score_that_is_always_positive_has_a_log_scale_and_says_so(axis, values, scale):
    draw_quality(axis, scores(baseline=[values]))
    assert axis.get_yscale() == scale
    assert ("log scale" in axis.get_ylabel()) == (scale == "log")


def test_the_figure_of_windows_says_what_heights_mean_and_its_mean_ends_with_the_first_seed(axis):
    rows = scores(tuned_lr=[[0.4, 1.6, 0.9], [0.6, 0.5]])
    words = {"title": "Interleaving", "label": "ratio", "meanings": {0: "never", 1: "centred"}}
    plots.windows(axis, rows, "score", plots.styles(FOUR), smoothing=1, **words)
    assert axis.get_ylim()[1] > 1.6
    assert [text.get_text() for text in axis.texts] == ["never", "centred"]
    assert len(axis.collections[0].get_offsets()) == 5
    assert axis.lines[0].get_ydata().tolist() == [0.5, 1.05]


def test_an_arm_is_a_point_at_its_means_with_its_seeds_around_it(axis):
    rows = pd.DataFrame({"arm": ["a", "a", "b"], "x": [0.1, 0.3, 0.5], "y": [0.1, 0.4, 0.3]})
    means = pd.DataFrame({"x": [0.2, 0.5], "y": [0.2, 0.3]}, index=["a", "b"])
    words = {"labels": {"a": "slow"}, "title": "", "xlabel": "", "ylabel": "KID"}
    arm_figures.draw(axis, rows, means, "x", "y", arm_figures.ramp(["a", "b"]), joined=["a", "b"], **words)
    seeds, mean, other = (points.get_offsets().data for points in axis.collections)
    assert seeds == pytest.approx(np.array([[0.1, 0.1], [0.3, 0.4]]))
    assert mean == pytest.approx(np.array([[0.2, 0.2]]))
    assert other == pytest.approx(np.array([[0.5, 0.3]])), "one seed is its own mean"
    assert axis.lines[0].get_xydata() == pytest.approx(means.to_numpy())
    assert [text.get_text() for text in axis.texts] == ["slow"]


@pytest.mark.parametrize("unknown", ["q", "interleaving_ratio_end"])
@pytest.mark.parametrize("rate", [2e-4, 8e-4])
def test_a_dose_of_the_plan_without_scores_or_a_ratio_leaves_the_figures_to_the_others(tmp_path, unknown, rate):
    """As while `make compare` makes the scores."""
    comparison = made(tmp_path, seeds=(10,), routes=ROUTES)
    runs = comparison.arms.runs.assign(isc_end=2.0)
    (arm,) = (arm for arm, change in comparison.arms.changes.items() if change == (DOSE, rate))
    runs[unknown] = runs[unknown].mask(runs["arm"] == arm)
    partial = replace(comparison, arms=replace(comparison.arms, runs=runs))
    for x, recipes in (("interleaving_ratio", 11), ("isc_mean", 11 if unknown == "q" else 12)):
        _, listed = arm_figures.against_quality(partial, x, arm_figures.all_looks(partial))
        assert listed.count(";") == recipes - 1


def test_every_seed_is_a_point_and_one_seed_has_no_interval(axis):
    rows = pd.DataFrame({"experiment": ["baseline", "baseline", "hires_128"], "value": [60.0, 70.0, 90.0]})
    means = pd.DataFrame(
        [("baseline", "64 px", 2, 65.0, 50.0, 80.0), ("hires_128", "128 px", 1, 90.0, np.nan, np.nan)],
        columns=["experiment", "group", "n", "mean", "low", "high"],
    ).assign(real=[9.0, np.nan])
    plots.seeds(axis, rows, means, plots.styles(FOUR), title="FID: lower is better", label="FID")
    points = [[x for x, _ in drawn.get_offsets()] for drawn in axis.collections]
    assert points == [[60.0, 70.0], [65.0, 90.0]]
    assert [list(line.get_xdata()) for line in axis.lines[:2]] == [
        [50.0, 80.0],
        pytest.approx([np.nan] * 2, nan_ok=True),
    ]
    assert legend(axis) == ["real images"]
    first, second = axis.get_yticks()
    assert second - first > 1, "another image size stands apart"
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["baseline\nn = 2 seeds", "hires_128\none seed"]
    assert [text.get_text() for text in axis.texts] == ["64 px", "128 px"]


def test_the_same_numbers_give_the_same_file_and_a_name_with_dollars_is_drawn_as_it_is():
    def drawn():
        with plots.drawing():
            figure = plots.figure(3)
            draw_quality(figure.subplots(), scores(**{r"a $\frac{$ name": [[2, 1]]}))
            return plots.encoded(figure)

    assert drawn() == drawn()
    assert drawn()["svg"].endswith(b"</svg>\n")

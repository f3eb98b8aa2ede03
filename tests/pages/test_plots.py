"""Figures: what can be read off them, told by what was put on the axis."""

import io

import numpy as np
import pytest
from PIL import Image

from analysis.pages import loss_plots, plots

FOUR = ["baseline", "regularized", "tuned_lr", "hires_128"]


@pytest.fixture
def axis():
    with plots.drawing():
        yield plots.figure(3).subplots()


def _legend(axis):
    (legend,) = axis.get_figure().legends
    return [text.get_text() for text in legend.get_texts()]


def _course(name, *seeds, error=None):
    lines = [plots.Line(np.array([100, 200]), np.array(values, dtype=float), error) for values in seeds]
    mean = plots.Line(np.array([100, 200]), np.mean(seeds, axis=0)) if len(seeds) > 1 else None
    return plots.Course(name, plots.styles([name])[name], lines, mean)


def _losses(n=300, crossings=(), zoom=None, height=1.0):
    step, curve = np.arange(1, n + 1), np.full(n, height)
    raw = {"loss_d": curve, "loss_g": 2 * curve}
    return loss_plots.Losses("tuned_lr, seed 0", step, raw, raw, np.asarray(crossings, dtype=float), zoom)


def test_an_experiment_keeps_its_looks_when_others_are_missing_or_come_first():
    whole = plots.styles([*FOUR, "mine"])
    for few in (["tuned_lr"], ["hires_128", "mine", "baseline"], ["another", "mine", *FOUR]):
        assert all(plots.styles(few)[name] == whole[name] for name in few if name in FOUR)
    assert plots.styles(["tuned_lr", "mine"])["mine"] == whole["mine"]


def test_ten_experiments_look_different_without_colour_too():
    looks = plots.styles([*FOUR, *(f"other {i}" for i in range(6))]).values()
    assert len({style.color for style in looks}) == len({style.marker for style in looks}) == 10


def test_the_networks_colours_are_no_experiment_s():
    taken = {color.lower() for color, _, _ in plots.NETWORKS.values()}
    assert not taken & {style.color.lower() for style in (*plots.DOCUMENTED.values(), *plots.OTHERS)}


def test_every_crossing_is_a_tick(axis):
    crossings = np.array([10.5, 11.5, 250.25])
    loss_plots.crossing_strip(axis, crossings, loss_plots.Limits(300, 2, (0.1, 1)))
    (ticks,) = axis.collections
    assert [segment[0][0] for segment in ticks.get_segments()] == crossings.tolist()


def test_ten_times_the_steps_make_paler_ticks():
    def darkness(steps):
        with plots.drawing():
            axis = plots.figure(2).subplots()
            loss_plots.crossing_strip(axis, np.array([1.0]), loss_plots.Limits(steps, 2, (0.1, 1)))
            return axis.collections[0].get_alpha()

    assert darkness(50_000) < darkness(5_000)


def test_the_zoom_has_a_dot_a_crossing_and_counts_them_against_the_reference(axis):
    zoom = loss_plots.Zoom(np.arange(4), np.ones(4), np.array([2, 0.5, 2, 2]), np.array([0.5, 1.5]), np.ones(2), 8.0)
    loss_plots.crossing_zoom(axis, zoom, loss_plots.Limits(4, 2, (0.1, 3)))
    assert len(axis.lines[-1].get_xdata()) == 2
    told = axis.get_title(loc="left")
    assert told.startswith("steps 0 to 3: 2 crossings")
    assert "it would be 8, ratio 0.25" in told


def test_runs_share_their_axes_and_what_leaves_them_is_told():
    with plots.drawing():
        figure = plots.figure(5)
        loss_plots.losses(figure, _losses(height=30), loss_plots.Limits(500, 4, (0.1, 1)), smoothing_steps=50)
    curves = figure.axes[0]
    assert curves.get_xlim() == (0, 500)
    assert curves.get_ylim() == (0, 4)
    assert any("up to 60" in text.get_text() for text in curves.texts)
    assert curves.get_title(loc="left").startswith("tuned_lr, seed 0\nthe curves cross 0 times in 300 steps")


def test_forty_thousand_steps_of_losses_stay_below_a_megabyte_of_svg():
    rng = np.random.default_rng(0)
    step = np.arange(40_000)
    raw = {"loss_d": rng.exponential(size=len(step)), "loss_g": rng.exponential(size=len(step))}
    smooth = {column: np.convolve(values, np.ones(50) / 50, "same") for column, values in raw.items()}
    with plots.drawing():
        figure = plots.figure(5)
        run = loss_plots.Losses("x", step, raw, smooth, np.arange(0, 40_000, 2.5))
        loss_plots.losses(figure, run, loss_plots.Limits(40_000, 3, (0.1, 1)), smoothing_steps=50)
        files = plots.encoded(figure)
    assert len(files["svg"]) < 1_000_000
    assert Image.open(io.BytesIO(files["png"])).size == (780, 750)


def test_several_seeds_are_thin_lines_and_their_mean_a_thick_one(axis):
    courses = [_course("baseline", [50, 40], [70, 60]), _course("tuned_lr", [30, 20])]
    plots.quality(axis, courses, title="FID", label="FID", floor=(8.0, "real against real (n = 2,500 images)"))
    thin, thin_too, thick, alone, floor = axis.lines
    assert thick.get_ydata().tolist() == [60, 50]
    assert thick.get_linewidth() > 2 * thin.get_linewidth() == 2 * thin_too.get_linewidth()
    assert alone.get_linewidth() > thin.get_linewidth()
    assert floor.get_ydata()[0] == 8.0
    assert _legend(axis) == ["baseline (n = 2 seeds)", "tuned_lr (one seed)", "real against real (n = 2,500 images)"]


@pytest.mark.parametrize("names", [["baseline", "tuned_lr"], ["hires_128", "hires_128_equal_lr", "hires_128_longer"]])
def test_a_legend_stays_within_its_figure(names):
    with plots.drawing():
        figure = plots.figure(4.1)
        courses = [_course(name, [50, 40]) for name in names]
        floor = (8.0, "real against real (n = 5,000 images)")
        plots.quality(figure.subplots(), courses, title="FID", label="FID", floor=floor)
        plots.encoded(figure)
        (legend,) = figure.legends
        box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_a_score_that_can_be_below_zero_has_no_log_scale(axis):
    plots.quality(axis, [_course("baseline", [0.2, -0.001])], title="KID", label="KID", floor=None)
    assert axis.get_yscale() == "linear"


def test_a_score_that_is_positive_has_one_and_says_so(axis):
    plots.quality(axis, [_course("baseline", [200, 20])], title="FID", label="FID", floor=None)
    assert axis.get_yscale() == "log"
    assert "log scale" in axis.get_ylabel()


def test_the_figure_of_windows_says_what_heights_mean_and_clips_nothing(axis):
    courses = [_course("tuned_lr", [0.4, 1.6], [0.5, 0.5])]
    plots.windows(axis, courses, title="Interleaving", label="ratio", meanings={0: "never", 1: "centred"})
    assert axis.get_ylim()[1] > 1.6
    assert [text.get_text() for text in axis.texts] == ["never", "centred"]


def test_the_scatter_draws_later_points_larger_and_says_the_verdict(axis):
    style = plots.styles(["baseline"])["baseline"]
    cloud = plots.Points("baseline", np.array([0.1, 0.2]), np.array([0.3, 0.2]), np.array([100, 5000]), 1, style)
    words = {"title": "t", "xlabel": "ratio", "ylabel": "KID", "verdict": "Can't tell: 2 runs, and " + 9 * "many "}
    plots.scatter(axis, [cloud], **words, ylim=(0.1, 0.5))
    early, late = axis.collections[0].get_sizes()
    assert late > 3 * early
    verdict = axis.get_figure().legends[0].get_title().get_text()
    assert verdict.startswith("Can't tell: 2 runs, and")
    assert max(map(len, verdict.splitlines())) < 65
    low, high = axis.get_ylim()
    assert low < 0.1 < 0.5 < high


def test_every_seed_is_a_point_and_one_seed_has_no_interval(axis):
    looks = plots.styles(FOUR)
    rows = [
        plots.Row("baseline", np.array([60.0, 70.0]), 65.0, 50.0, 80.0, looks["baseline"], "64 px"),
        plots.Row("hires_128", np.array([90.0]), 90.0, np.nan, np.nan, looks["hires_128"], "128 px"),
    ]
    plots.seeds(axis, rows, title="FID: lower is better", label="FID")
    points = [list(line.get_xdata()) for line in axis.lines if line.get_marker() not in ("None", "")]
    assert [60.0, 70.0] in points
    assert [90.0] in points
    assert sum(list(line.get_xdata()) == [50.0, 80.0] for line in axis.lines) == 1
    first, second = axis.get_yticks()
    assert second - first > 1  # another image size stands apart
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["baseline (64 px)\nn = 2 seeds", "hires_128 (128 px)\none seed"]


def test_a_name_with_dollars_is_drawn_as_it_is():
    with plots.drawing():
        figure = plots.figure(3)
        name = r"a $\frac{$ name"
        plots.quality(figure.subplots(), [_course(name, [2, 1])], title=name, label="FID", floor=None)
        assert plots.encoded(figure)["svg"].endswith(b"</svg>\n")


def test_the_same_numbers_give_the_same_file():
    def drawn():
        with plots.drawing():
            figure = plots.figure(3)
            plots.quality(figure.subplots(), [_course("baseline", [2, 1])], title="t", label="FID", floor=None)
            return plots.encoded(figure)

    assert drawn() == drawn()

"""Scoring run folders: what is computed, what is kept, and when it is computed again. Real images, a tiny extractor."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support.made_runs import make_run
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from analysis import reference, score
from analysis.measures import damage, features, fidelity
from analysis.runs.folders import read_folders
from dcgan import UserError, sample
from dcgan.data import open_source, pack
from dcgan.networks import Generator
from dcgan.record import weights

SAMPLES = 120


class Tiny(nn.Module):
    """Mean colours of a 4x4 grid as features, and a linear map of them as logits."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.weight = nn.Parameter(torch.randn(48, 10, generator=torch.Generator().manual_seed(0)))

    def forward(self, images):
        self.calls += 1
        seen = adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)
        return seen, seen @ self.weight


@pytest.fixture
def extractor():
    return features.Extractor("tiny", "feedbeef" * 2, Tiny())


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def drawn(cache):
    """What a run on 300 drawn faces records of its data."""
    return _recorded(pack(open_source(None, cache=cache), size=64, crop_px=None, images=300, cache=cache))


def _recorded(packed):
    facts = {key: getattr(packed, key) for key in ("name", "source", "fingerprint", "count", "unreadable")}
    return facts


def _generator(seed, size=64):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Generator(size, 8, 16)


def _trained(runs, data, name="baseline", seed=0, size=64, **more):
    """A finished run with two snapshots, the last of which is the final generator."""
    folder = make_run(runs, name, seed, data=data, **more)
    for step in (200, 400):
        folder.snapshot(step).parent.mkdir(exist_ok=True)
        weights.save(folder.snapshot(step), _generator(10 * seed + step, size))
    weights.save(folder.generator, _generator(10 * seed + 400, size))
    return folder


def _run(folder):
    ((run,), lines) = read_folders(folder.path)
    assert not lines
    return run


def _score(scorer, runs):
    return scorer.score(scorer.missing(runs))


def _scorer(extractor, cache, **options):
    return score.Scorer(extractor, cache=cache, **{"samples": SAMPLES, **options})


def test_the_final_generator_and_the_snapshots_are_scored_under_names_that_say_what_they_are(
    tmp_path, drawn, cache, extractor
):
    folder = _trained(tmp_path, drawn)
    scorer = _scorer(extractor, cache)
    assert _score(scorer, [_run(folder)]) == []
    rows = pd.read_csv(folder.path / "scores.csv")
    assert list(rows) == ["step", "generator", "score", "value", "protocol"]
    assert not rows.duplicated().any(), "the last snapshot is the final generator"
    assert {"fid_120_tiny", "kid_mean_120_tiny", "precision_120_tiny", "isc_mean_120_tiny"} <= set(rows["score"])
    (protocol,) = set(rows["protocol"])
    for part in ("tiny:feedbeef", drawn["fingerprint"][:8], "64px", "300", "seed=0", "eval-batchnorm"):
        assert part in protocol
    found = scorer.scores_of(_run(folder))[1]
    assert list(found.snapshots["step"]) == [200, 400]
    assert found.final["fid"] == found.snapshots["fid"].iloc[1] > found.final["fid_floor"] > 0
    assert 0 <= found.final["precision"] <= 1
    assert (found.final["n_real"], found.final["floor_n"]) == (300, 120)
    assert not folder.path.joinpath("scores.csv.tmp").exists()


VARIED = ("copied", "copied_real", "variety", "variety_real", "precision_real", "recall_real")


def test_a_final_generator_is_looked_at_for_copies_and_variety_beside_the_real_images(
    tmp_path, drawn, cache, extractor
):
    folder = _trained(tmp_path, drawn)
    scorer = _scorer(extractor, cache)
    _score(scorer, [_run(folder)])
    final = scorer.scores_of(_run(folder))[1].final
    assert set(VARIED) <= set(final)
    # An untrained generator's noise is far from any face, and one patch of noise is much like another.
    assert final["copied"] == 0 < final["copied_real"] < 1
    assert 0 < final["variety"] < final["variety_real"]
    assert final["recall"] == 0 < final["recall_real"]
    with Image.open(folder.path / score.NEAREST) as image:
        shown = np.asarray(image)
    tiles = [[shown[2 + 66 * y : 66 + 66 * y, 2 + 66 * x : 66 + 66 * x] for x in range(8)] for y in range(4)]
    generated = sample.images(weights.load_generator(folder.generator), range(8)).permute(0, 2, 3, 1).numpy()
    real = score.real_images(_run(folder), size=64, cache=cache).images
    for x in range(8):
        np.testing.assert_array_equal(tiles[0][x], generated[x])
        every = torch.from_numpy(np.concatenate([generated[x : x + 1], real])).permute(0, 3, 1, 2)
        seen = extractor.network(every)[0].detach().double()
        nearest = torch.cdist(seen[:1], seen[1:])[0].argsort()[:3]
        for y, place in enumerate(nearest):
            np.testing.assert_array_equal(tiles[1 + y][x], real[place])


def test_what_has_scores_is_not_scored_again_and_what_changed_is(tmp_path, drawn, cache, extractor):
    folder = _trained(tmp_path, drawn)
    _score(_scorer(extractor, cache), [_run(folder)])
    calls = extractor.network.calls
    _score(_scorer(extractor, cache), [_run(folder)])
    assert extractor.network.calls == calls
    before = _scorer(extractor, cache).scores_of(_run(folder))[1]
    weights.save(folder.snapshot(200), _generator(5))
    _score(_scorer(extractor, cache), [_run(folder)])
    after = _scorer(extractor, cache).scores_of(_run(folder))[1]
    assert after.final == before.final
    assert after.snapshots["fid"].iloc[0] != before.snapshots["fid"].iloc[0]
    assert after.snapshots["fid"].iloc[1] == before.snapshots["fid"].iloc[1]
    assert extractor.network.calls > calls


def test_scores_do_not_depend_on_what_else_is_scored(tmp_path, drawn, cache, extractor):
    whole, pruned = _trained(tmp_path / "a", drawn), _trained(tmp_path / "b", drawn)
    for step in (200, 400):
        pruned.snapshot(step).unlink()
    scorer = _scorer(extractor, cache)
    _score(scorer, [_run(whole), _run(pruned)])
    assert scorer.scores_of(_run(whole))[1].final == scorer.scores_of(_run(pruned))[1].final


def test_generators_are_compared_with_a_fixed_sample_of_the_real_images(tmp_path, drawn, cache, extractor, monkeypatch):
    monkeypatch.setitem(reference.COUNTS, "smoke", reference.Counts(250, 200, 200))
    folder, seen = _trained(tmp_path, drawn), []
    forward = extractor.network.forward
    monkeypatch.setattr(extractor.network, "forward", lambda images: (seen.extend(images), forward(images))[1])
    passes = {}
    for fresh in range(2):  # a second scorer takes what the first one has cached
        scorer = _scorer(extractor, cache)
        jobs = scorer.missing([_run(folder)])
        assert len(jobs) == 2
        seen.clear()
        scorer.score(jobs)
        passes[fresh] = len(seen)
        (folder.path / "scores.csv").rename(folder.path / f"scores-{fresh}.csv")
    assert passes[0] - passes[1] >= 250
    one, other = (pd.read_csv(folder.path / f"scores-{fresh}.csv") for fresh in range(2))
    pd.testing.assert_frame_equal(one, other)
    assert set(one.loc[one["score"] == "n_real_120_tiny", "value"]) == {250}
    assert all("real=embedded-" in text and ":64px:250of300 " in text for text in one["protocol"])
    (features_of_sample,) = (
        np.load(path) for path in (cache / "features").iterdir() if np.load(path).shape == (250, 48)
    )
    every = score.real_images(_run(folder), size=64, cache=cache).images
    expected, _ = forward(torch.from_numpy(np.array(every)).permute(0, 3, 1, 2))
    places = [int(np.abs(expected.detach().numpy() - row).sum(1).argmin()) for row in features_of_sample]
    assert places == sorted(set(places)), "each at most once"
    assert places != list(range(250)), "drawn, not the first ones"


def test_scores_of_two_extractors_never_meet(tmp_path, drawn, cache, extractor):
    folder = _trained(tmp_path, drawn)
    other = features.Extractor("tiny", "0" * 16, Tiny())
    _score(_scorer(extractor, cache), [_run(folder)])
    assert _scorer(other, cache).scores_of(_run(folder))[1].final == {}
    _score(_scorer(other, cache), [_run(folder)])
    assert len(set(pd.read_csv(folder.path / "scores.csv")["protocol"])) == 2
    assert (
        _scorer(extractor, cache).scores_of(_run(folder))[1].final
        == _scorer(other, cache).scores_of(_run(folder))[1].final
    )


def test_a_deleted_snapshot_keeps_its_scores_and_a_broken_one_costs_only_its_own(tmp_path, drawn, cache, extractor):
    folder = _trained(tmp_path, drawn)
    folder.snapshot(400).write_bytes(b"not weights")
    (note,) = _score(_scorer(extractor, cache), [_run(folder)])
    assert str(note).startswith("baseline seed 0: step 400 not scored: step-000400.pt: ")
    assert "\n" not in note.text
    found = _scorer(extractor, cache).scores_of(_run(folder))[1]
    assert found.final
    folder.snapshot(200).unlink()
    scorer = _scorer(extractor, cache)
    _score(scorer, [_run(folder)])
    assert 200 in list(scorer.scores_of(_run(folder))[1].snapshots["step"])


def test_an_unfinished_run_is_left_alone(tmp_path, drawn, cache, extractor):
    folder = _trained(tmp_path, drawn, state="interrupted")
    assert _score(_scorer(extractor, cache), [_run(folder)]) == []
    assert not (folder.path / "scores.csv").exists()


@pytest.mark.parametrize(
    "content", [b"step,gen\n1,\xff\xfe", b"step,generator,score,value,protocol\n99999999999999999999,g,fid,1,v\n"]
)
def test_a_damaged_score_file_is_made_again(tmp_path, drawn, cache, extractor, content):
    folder = _trained(tmp_path, drawn)
    (folder.path / "scores.csv").write_bytes(content)
    _score(_scorer(extractor, cache), [_run(folder)])
    assert _scorer(extractor, cache).scores_of(_run(folder))[1].final
    assert (folder.path / "scores.csv.damaged").read_bytes() == content


def test_too_few_samples_are_refused_before_anything_is_scored(cache, extractor):
    with pytest.raises(UserError, match=r"--samples 99 \(SAMPLES=\): a score needs at least 100 images"):
        _scorer(extractor, cache, samples=99)
    _scorer(extractor, cache, samples=100)


def test_a_larger_run_is_also_scored_at_64_px(tmp_path, drawn, cache, extractor):
    pack(open_source(None, cache=cache), size=128, crop_px=None, images=300, cache=cache)
    large = _trained(tmp_path, drawn, "hires_128", size=128)
    scorer = _scorer(extractor, cache)
    assert _score(scorer, [_run(large)]) == []
    found = scorer.scores_of(_run(large))[1].final
    # Mean colours of a 4x4 grid are the same at both sizes but for rounding and the drawing.
    assert found["fid_at_64"] == pytest.approx(found["fid"], rel=0.05)
    assert found["fid_at_64"] != found["fid"]


def test_missing_scores_are_added_once_the_real_images_are_there(tmp_path, drawn, extractor):
    photographs, cache = _photographs(tmp_path / "photographs", 250), tmp_path / "cache"
    source = open_source(photographs, cache=cache)
    packed = pack(source, size=128, crop_px=None, images="all", cache=cache)
    run = _run(_trained(tmp_path, _recorded(packed), "hires_128", size=128))
    scorer = _scorer(extractor, cache)
    for _ in range(2):  # reported each time
        (note,) = _score(scorer, [run])
        assert "no fid_at_64" in note.text
        assert "DATA=path" in note.text
        assert "fid_at_64" not in scorer.scores_of(run)[1].final
    with_data = _scorer(extractor, cache, data=str(photographs))
    assert _score(with_data, [run]) == []
    assert with_data.scores_of(run)[1].final["fid_at_64"] > 0


def test_other_pixels_make_other_scores_and_features(tmp_path, drawn, cache, extractor, monkeypatch):
    run = _run(_trained(tmp_path, drawn))
    _score(_scorer(extractor, cache), [run])
    kept = set((cache / "features").iterdir())
    for module in ("reference", "score"):
        monkeypatch.setattr(f"analysis.{module}.PIXELS_VERSION", 99)
    assert not _scorer(extractor, cache).scores_of(run)[1].final
    _score(_scorer(extractor, cache), [run])
    assert set((cache / "features").iterdir()) > kept


def _photographs(folder, count, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize((64, 64)).save(folder / f"{i:03d}.png")
    return folder


def test_features_of_real_images_are_kept_by_content(tmp_path, extractor):
    cache = tmp_path / "cache"

    def train(name, photographs):
        packed = pack(open_source(photographs, cache=cache), size=64, crop_px=None, images="all", cache=cache)
        return _run(_trained(tmp_path / name, _recorded(packed)))

    one = train("one", _photographs(tmp_path / "photographs", 150))
    _score(_scorer(extractor, cache), [one])
    kept = set((cache / "features").iterdir())
    same = train("two", _photographs(tmp_path / "elsewhere" / "photographs", 150))
    _score(_scorer(extractor, cache), [same])
    assert set((cache / "features").iterdir()) == kept
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photographs" / "000.png")
    changed = train("three", tmp_path / "photographs")
    assert changed.data != one.data
    _score(_scorer(extractor, cache), [changed])
    assert len(set((cache / "features").iterdir()) - kept) == len(kept)


def test_a_run_on_part_of_the_images_is_also_scored_against_unseen_ones(tmp_path, extractor):
    photographs, cache = _photographs(tmp_path / "photographs", 300), tmp_path / "cache"
    packed = pack(open_source(photographs, cache=cache), size=64, crop_px=None, images=120, cache=cache)
    run = _run(_trained(tmp_path / "runs", _recorded(packed), overrides=["images=120"]))
    assert _score(_scorer(extractor, cache), [run]) == []
    assert _scorer(extractor, cache).scores_of(run)[1].snapshots["fid_unseen"].isna().all(), (
        "nobody says where they are"
    )
    scorer = _scorer(extractor, cache, data=str(photographs))
    assert len(scorer.missing([run])) == 2, "the two snapshots"
    assert _score(scorer, [run]) == []
    snapshots = scorer.scores_of(run)[1].snapshots
    assert scorer.missing([run]) == []
    unseen = pack(open_source(photographs, cache=cache), size=64, crop_px=None, images=120, cache=cache, besides=120)
    fake = sample.images(weights.load_generator(run.snapshots()[200]), range(SAMPLES))
    real, points = (
        fidelity.Points.of(features.extract(extractor, images, total=120, desc="").features, "cpu")
        for images in (torch.from_numpy(np.array(unseen.images)).permute(0, 3, 1, 2), fake)
    )
    assert snapshots["fid_unseen"].iloc[0] == pytest.approx(fidelity.fid(real=real, fake=points))
    assert (snapshots["fid_unseen"] != snapshots["fid"]).all()


@pytest.mark.parametrize(("trained_on", "count"), [("all", 0), (150, 150), (200, 100), (260, 0), (900, 0)])
def test_unseen_images_are_as_many_as_those_of_the_run_or_at_least_a_thousand(tmp_path, monkeypatch, trained_on, count):
    monkeypatch.setattr(reference, "LEAST_UNSEEN", 100)
    source = open_source(_photographs(tmp_path / "photographs", 300), cache=tmp_path)
    data = {"name": source.name, "source": "f", "fingerprint": source.fingerprint, "count": 300, "unreadable": 0}
    run = _run(make_run(tmp_path / "runs", "baseline", data=data, overrides=[f"images={trained_on}"]))
    assert reference.unseen_count(run, source) == count


def test_real_images_that_the_cache_has_lost_are_asked_for_and_taken(tmp_path, extractor):
    photographs, cache = _photographs(tmp_path / "photographs", 150), tmp_path / "cache"
    packed = pack(open_source(photographs, cache=cache), size=64, crop_px=None, images="all", cache=cache)
    run = _run(_trained(tmp_path / "runs", _recorded(packed)))
    elsewhere = tmp_path / "another cache"
    notes = _score(_scorer(extractor, elsewhere), [run])
    assert len(notes) == 1, "a line a run, not one a generator"
    assert "give their location with DATA=path (--data)" in notes[0].text
    others = _photographs(tmp_path / "others", 150, seed=1)
    assert _score(_scorer(extractor, elsewhere, data=str(others)), [run]), "other images are not taken for them"
    assert _score(_scorer(extractor, elsewhere, data=str(photographs)), [run]) == []
    assert _scorer(extractor, elsewhere).scores_of(run)[1].final["fid"] > 0


def test_what_people_rate_is_uncurated(tmp_path, drawn, cache):
    folder = _trained(tmp_path, drawn)
    sheet, shown = score.pictures_to_rate(_run(folder), cache=cache)
    generator = weights.load_generator(folder.generator)
    wanted = sample.images(generator, range(64)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(shown[:64], wanted)
    damaged = np.array(shown[96:])
    assert damaged.shape == (32, 64, 64, 3)
    assert len({*sheet.real_indices, *sheet.damaged_indices}) == 64, "nobody is shown twice"
    images = score.real_images(_run(folder), size=64, cache=cache).images
    np.testing.assert_array_equal(shown[64:96], images[list(sheet.real_indices)])
    original = images[list(sheet.damaged_indices)]
    np.testing.assert_array_equal(damaged[:16], damage.swapped_halves(original[:16]))
    np.testing.assert_array_equal(damaged[16:], damage.moved_eye(original[16:]))
    assert (damaged != original).any(axis=(1, 2, 3)).all()


def test_the_same_generator_gets_the_same_page_and_another_one_another(tmp_path, drawn, cache):
    runs = [_run(_trained(tmp_path / name, drawn, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    first, again, another = (score.pictures_to_rate(run, cache=cache)[0] for run in runs)
    assert first.page == again.page
    assert first.order == again.order != another.order


def test_fewer_real_images_than_a_page_wants_are_all_shown_half_of_them_damaged(tmp_path, extractor):
    photographs, cache = _photographs(tmp_path / "photographs", 20), tmp_path / "cache"
    packed = pack(open_source(photographs, cache=cache), size=64, crop_px=None, images="all", cache=cache)
    sheet, shown = score.pictures_to_rate(_run(_trained(tmp_path, _recorded(packed))), cache=cache)
    assert sorted([*sheet.real_indices, *sheet.damaged_indices]) == list(range(20))
    assert len(sheet.damaged_indices) == 10
    assert len(shown) == 64 + 20

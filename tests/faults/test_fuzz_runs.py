"""Run folders with rubbish in them, drawn by Hypothesis: the broken run is named, the other is compared as before.

How many cases comes from the Hypothesis profile: `make test-faults` runs hundreds of each.
"""

import contextlib
import copy
import json
import math

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.hostile import mutated, mutations
from support.lab import STEPS

pytestmark = pytest.mark.thorough
#: A page takes seconds to draw, a case of the reading part tens of milliseconds.
READ, DRAWN = max(10, settings().max_examples // 5 - 10), max(2, settings().max_examples // 50)
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]

HOSTILE = [
    None, True, 0, -1, 7, 2**31, 2**53, 2**63, -(2**64), 10**30, 0.0, -0.0, 1e-300, 1e308, -1e308,
    math.nan, math.inf, -math.inf, "", " ", "7", "1e999", "nan", "all", "x" * 300, "a\x00b", "\x1b[2J", "two\nlines",
    "\u2028\u2029\x85", "../../../out", "/tmp/out", "..", ".", "a/b", "~", "-rf", "<script>alert(1)</script>",
    "</script>", "'\"><img src=x onerror=alert(1)>", "${x}", "{{ x }}", "$\\frac{", "%s%n", "=cmd()", "|a|b|",
    "\U0001f600",
    [], [1], [[[]]], ["a", 1.5], {}, {"a": 1}, {"": None}, {"step": 1}, {"a": {"b": [None]}},
]  # fmt: skip
SPICY_CELLS = [
    "", "nan", "NaN", "inf", "-inf", "1e999", "-1e999", "1e-999", "-1", "0", "0x10", "1_000", "9" * 30, "9" * 5000,
    "1e30", "low", "None", "true", "1,2", '"', "'", '"a\nb"', "\x00", "\ufeff", "\u2028", "1.5", " 7", "7 ", "+7",
    "--7", "e", "-", "<b>", "=1+1",
]  # fmt: skip

values = st.sampled_from(HOSTILE) | st.text(max_size=20) | st.integers() | st.floats()


# ---- mutations


def records(valid):
    """A mapping with up to three things in it that do not belong there: changed, gone, new, or of another type."""

    @st.composite
    def changed(draw):
        record = copy.deepcopy(valid)
        for _ in range(draw(st.integers(1, 3))):
            node = record
            while True:
                keys = list(node) if isinstance(node, dict) else list(range(len(node)))
                key = draw(st.sampled_from(keys)) if keys else None
                inner = node[key] if keys else None
                if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                    node = inner
                    continue
                break
            what = draw(st.sampled_from(["value", "value", "value", "gone", "new"]))
            if what == "value" and keys:
                node[key] = copy.deepcopy(draw(values))  # or the next change would change HOSTILE itself
            elif what == "gone" and keys:
                del node[key]
            elif isinstance(node, dict):
                node[draw(st.text(max_size=8) | st.sampled_from(["state", "wandb_url", "overrides"]))] = copy.deepcopy(
                    draw(values)
                )
        return record

    return changed()


def broken_tables(valid):
    """A CSV file with cells, rows and columns that do not belong there, in another order, twice, or torn."""
    rows = [line.split(",") for line in valid.decode().splitlines()]

    @st.composite
    def changed(draw):
        table = [list(row) for row in rows]
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.sampled_from([0, 1, len(table) - 1]) | st.integers(0, len(table) - 1))
            column = draw(st.integers(0, len(table[0]) - 1))
            what = draw(st.sampled_from(["cell", "cell", "cell", "swap", "twice", "gone", "column", "less", "header"]))
            if what == "cell" and column < len(table[at]):
                table[at][column] = draw(st.sampled_from(SPICY_CELLS) | st.text(max_size=8))
            elif what == "swap":
                other = draw(st.integers(0, len(table) - 1))
                table[at], table[other] = table[other], table[at]
            elif what == "twice":
                table.insert(at, list(table[at]))
            elif what == "gone" and len(table) > 1:
                del table[at]
            elif what == "column":
                cell = draw(st.sampled_from([*SPICY_CELLS, *table[0]]))
                table = [[*row, cell] for row in table]
            elif what == "less":
                table = [row[:column] + row[column + 1 :] for row in table]
            elif what == "header":
                table[0][column % len(table[0])] = draw(st.sampled_from([*table[0], "", "step", " step"]))
            assume(table and all(table[:1]))
        text = "\n".join(",".join(row) for row in table) + draw(
            st.sampled_from(["\n", "", "\n\n", "\r\n", ",", "\n1,2"])
        )
        return text.encode("utf-8", "surrogatepass")

    return changed()


def yaml_bytes(record):
    """YAML of anything: the lab's own writer would refuse some of it."""
    with contextlib.suppress(Exception):
        return yaml.dump(record, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    return json_bytes(record)


def json_bytes(record):
    return json.dumps(record).encode()


# ---- the reading part, thousands of times


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "rating", "sheet"])
def test_a_record_with_values_that_do_not_belong_there_stops_no_other_run(lab, name):
    read = {"config.yaml": yaml.safe_load}.get(name, json.loads)
    written = {"config.yaml": yaml_bytes}.get(name, json_bytes)

    @settings(max_examples=READ, suppress_health_check=SLOW)
    @given(records(read(lab.valid[name])))
    def holds(record):
        with lab.with_file(name, written(record)):
            lab.look()

    holds()


@pytest.mark.parametrize("name", ["history.csv", "scores.csv"])
def test_a_table_with_cells_that_do_not_belong_there_stops_no_other_run(lab, name):
    @settings(max_examples=READ, suppress_health_check=SLOW)
    @given(broken_tables(lab.valid[name]))
    def holds(content):
        with lab.with_file(name, content):
            lab.look()

    holds()


@pytest.mark.parametrize(
    "name", ["config.yaml", "history.csv", "status.json", "scores.csv", "rating", "sheet", "sample"]
)
def test_any_bytes_in_a_file_stop_no_other_run(lab, name):
    @settings(max_examples=READ)
    @given(mutations().map(lambda changes: mutated(lab.valid[name], changes)) | st.binary(max_size=200))
    @example(b"")
    @example(b"\x00" * 1000)
    @example(b"\xff\xfe" + "step,loss_d".encode("utf-16-le"))
    @example(b"[" * 100_000)
    @example(b'{"state":' * 50_000)
    def holds(content):
        with lab.with_file(name, content):
            lab.look()

    holds()


# ---- the whole command, tens of times


@pytest.mark.slow
def test_the_whole_command_holds_whatever_a_run_folder_has_in_it(lab):
    cases = [
        *[st.tuples(st.just(name), broken_tables(lab.valid[name])) for name in ("history.csv", "scores.csv")],
        st.tuples(
            st.just("status.json"), records(json.loads(lab.valid["status.json"])).map(json.dumps).map(str.encode)
        ),
        st.tuples(st.just("config.yaml"), records(yaml.safe_load(lab.valid["config.yaml"])).map(yaml_bytes)),
    ]

    @settings(max_examples=DRAWN, suppress_health_check=SLOW)
    @given(st.one_of(cases))
    def holds(case):
        with lab.with_file(*case):
            lab.compare()

    holds()


@settings(max_examples=READ)
@given(records({"state": "finished", "step": STEPS, "wandb_url": None, "seconds": {"input": 1.0}}))
def test_the_dashboard_holds_whatever_a_status_says(lab, record):
    with pytest.MonkeyPatch.context() as patched, lab.with_file("status.json", json.dumps(record).encode()):
        patched.setattr("webbrowser.open", lambda url: None)
        patched.setenv("WANDB_MODE", "online")
        lab.command("dashboard", "--terminal")

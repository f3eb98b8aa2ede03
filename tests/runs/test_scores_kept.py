"""A damaged scores.csv is kept beside the new one."""

from types import SimpleNamespace

from analysis.runs import scores
from dcgan.record.folder import RunFolder


def test_a_damaged_score_file_is_kept_when_new_scores_are_written(tmp_path):
    run, row = SimpleNamespace(folder=RunFolder(tmp_path)), scores.Row(1, "a", "fid_9_effnet_lite0", 7.0, "P2")
    damaged = "step,generator,score,value,protocol\n1,a,fid_9_inception,3.5,P1\nx,b,fid,1,P1\n"
    (tmp_path / scores.NAME).write_text(damaged)
    scores.append_rows(run, [row])
    assert scores.read_rows(run) == [row]
    assert (tmp_path / f"{scores.NAME}.damaged").read_text() == damaged

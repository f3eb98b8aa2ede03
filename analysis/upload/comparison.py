"""The comparison as a run of its own in W&B: the table, the figures and the page."""

import shutil
from pathlib import Path

from analysis.compare.comparison import Comparison
from dcgan.record.wandb_log import Tracker
from dcgan.tools.files import checksum


def upload(comparison: Comparison, folder: Path) -> None:
    """Log the comparison's report, which lies in `folder`; one data set and profile keep one run in W&B."""
    shutil.rmtree(folder / "wandb", ignore_errors=True)  # an older one that was logged offline
    from_wandb = " from W&B" if comparison.runs[0].folder is None else ""
    name = f"{comparison.data} {comparison.profile}{from_wandb}"
    identity = {
        "id": checksum(name.encode(), nbytes=4),
        "name": name,
        "group": "comparison",
        "job_type": "comparison",
        "config": {"data": comparison.data, "profile": comparison.profile, "protocol": dict(comparison.protocol)},
    }
    tracker = Tracker(folder, identity=identity)
    figures = {path.stem: path for path in sorted((folder / "figures").glob("*.png"))}
    tracker.present(table=comparison.table, figures=figures, page=folder / "index.html")
    tracker.finish(state="finished")

"""Parquet shards as hubs serve them: a column of encoded images, as bytes or as {bytes, path}."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from dcgan import first_line
from dcgan.data.files import DataError, Entry, check_unpacked, file_signature
from dcgan.data.parallel import Held

ROWS = 32  # images in memory at a time


class Parquet:
    """One or more shards, in the order of their names, read from the start."""

    def __init__(self, *shards: Path, left_out: Counter[str] | None = None):
        self.shards, self.left_out = sorted(shards), left_out or Counter()
        self.signature = f"{[file_signature(shard) for shard in self.shards]}{sorted(self.left_out.items())}"

    @cached_property
    def count(self) -> int:
        return sum(_opened(shard).metadata.num_rows for shard in self.shards)

    def entries(self, ranks: Sequence[int]) -> Iterator[Entry]:
        start = 0
        for shard in self.shards:
            before = start
            file = _opened(shard)
            column = _image_column(shard, file)
            try:
                for group in range(file.num_row_groups):
                    first, start = start, start + file.metadata.row_group(group).num_rows
                    if bisect_left(ranks, first) == bisect_left(ranks, start):
                        continue
                    for batch in file.iter_batches(ROWS, [group], [column], use_threads=False):
                        values = batch.column(0)
                        if column.endswith(".bytes"):
                            (values,) = values.flatten()  # of the struct; a row that is null stays so
                        for index in range(bisect_left(ranks, first), bisect_left(ranks, first + len(values))):
                            image = values[ranks[index] - first].as_py() or b""
                            yield index, f"{shard.name}[{ranks[index] - before}]", Held(image)
                        first += len(values)
            except Exception as error:  # pyarrow's are of many kinds
                raise DataError(f"{shard}: damaged: {first_line(error)}") from error


def _opened(shard: Path) -> Any:
    """Open a shard. Raises DataError if that is impossible, or if it holds no images."""
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(f"{shard}: reading parquet needs pyarrow: `.venv/bin/uv pip install pyarrow`") from error
    try:
        file = ParquetFile(shard)
    except Exception as error:  # pyarrow's are of many kinds
        raise DataError(f"{shard} is damaged, incomplete, or not a parquet file: {first_line(error)}") from error
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    check_unpacked(shard, sum(group.total_byte_size for group in groups))
    _image_column(shard, file)
    return file


def _image_column(shard: Path, file: Any) -> str:
    """Return the name of the column of images; the one called `image` or `img` if there are several."""
    import pyarrow.types as types

    def is_bytes(kind: Any) -> bool:
        return types.is_binary(kind) or types.is_large_binary(kind)

    found = []
    for field in file.schema_arrow:
        inner = types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
        if is_bytes(field.type.field("bytes").type if inner else field.type):
            found.append(f"{field.name}.bytes" if inner else field.name)
    preferred = [name for name in found if name.partition(".")[0] in ("image", "img")]
    if len(found) == 1 or len(preferred) == 1:
        return (preferred or found)[0]
    listed = ", ".join(f"{field.name}: {field.type}" for field in file.schema_arrow)
    problem = "several columns could be the images" if found else "no column of image bytes"
    raise DataError(f"{shard}: {problem} ({listed}); it should be one, called `image`")

"""Sixty small nights, one after another: a table's files stay few, and a night writes what it changed."""

import statistics
import time

import pytest

from pipelines.core.names import LAYERS
from pipelines.lake import delta, layout
from tests.support.lake import Lake
from tests.support.oracle import agree
from tests.support.readers import misread
from tests.support.source import execute

NIGHTS = 60


@pytest.mark.long
def test_after_sixty_nights_a_table_has_few_files_and_a_night_writes_no_more_than_at_first(
    keyed_lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds, written, most = list[float](), list[int](), 0
    for night in range(NIGHTS):
        execute(
            keyed_lake.address,
            f"INSERT INTO movimento SELECT {1000 + 10 * night} + i, 1, 'n', '2024-01-01', 1 FROM generate_series(1, 5) i",
            f"UPDATE movimento SET des_transacao = 'n{night}' WHERE id = {night + 1}",
            f"DELETE FROM movimento WHERE id = {100 + night}",
            f"UPDATE associado SET nome = 'n{night}' WHERE id = {night % 20 + 1}",
        )
        began = time.monotonic()
        keyed_lake.run()
        seconds.append(time.monotonic() - began)
        bytes_of_night = 0
        for layer in LAYERS:
            path, run = keyed_lake.settings().layer_path(layer) / "cartoes", keyed_lake.last(layer)
            for table in run.tables:
                files = delta.files_of(path / table.name, table.version)
                most = max(most, len(files))
                bytes_of_night += sum(size for name, size in files.items() if f"-{run.run:05d}-" in name)
        written.append(bytes_of_night)
    assert most <= layout.MANY_SMALL_FILES + 1
    assert statistics.mean(written[40:]) < 2 * statistics.mean(written[10:30]), written
    assert agree(keyed_lake) == 200 + 4 * NIGHTS and misread(keyed_lake) == []
    with capsys.disabled():
        first, last = statistics.median(seconds[5:20]), statistics.median(seconds[-15:])
        print(f"\nmost files of a table: {most}; seconds of a night: {first:.2f} at first, {last:.2f} at last")

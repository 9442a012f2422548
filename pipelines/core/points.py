"""The commit protocol: the points at which a run may die, in the order in which it passes them, and what then holds.

At every point readers see the last recorded run, and the next run of the same layer clears away what this one left.
Only after RECORDED is it this run that they see. Tests arm a point and end the process there; otherwise it costs a
comparison.
"""

from collections.abc import Callable
from enum import Enum


class Point(Enum):
    """A name for each point; the value says what holds after a crash there."""

    # A run reads its source or the upstream run, and writes files that no commit names.
    SNAPSHOT_TAKEN = "Bronze has described its source in one snapshot. The server ends the snapshot; no file is there."
    LANDING_LISTED = "A run knows which files it will ingest. None was: each is new to the next run."
    BATCH_SHAPED = "A reader is in the middle of a file. The half file lies in the table's folder, no commit names it."
    FILE_INGESTED = "Rows of landed files are in a file that no commit names: the files are new to the next run."
    SPARK_WROTE = "Spark's files lie in a scratch folder, which the next run sweeps."
    FILES_WRITTEN = "A table's files are in place, not proved. No commit names them; `make maintain` removes them."
    FILES_SPLICED = "The files of a changed table are written again, not proved. Its head still names the old ones."
    # All tables are proved. Of gold, the CSV is written beside its place.
    TABLES_BUILT = "All tables of gold are proved, no CSV is begun. No head has moved."
    CSV_WRITTEN = "A CSV lies beside its place, not read back. The published one is untouched; the draft is swept."
    # Signals wait from here on: each table's commit, each CSV's name, then the run's record.
    TABLE_PROVED = "A table is about to be committed. Its head is what the last run recorded."
    COMMIT_WRITTEN = "A commit is complete beside the log. The head has not moved; the scratch file is swept."
    TABLE_COMMITTED = "Some heads are ahead of what the last run recorded. The next run rolls them back first."
    ALL_COMMITTED = "All heads are ahead and the CSV may have its new name, but no run says so: rolled back, too."
    RULES_RECORDED = "`_quality` has rows of a run that is not in `_runs`. The next record of its number replaces them."
    FILES_RECORDED = "`_files` has rows of a run that is not in `_runs`. Readers skip them; the next run replaces them."
    RECORDED = "The run counts: readers see it, whatever happens now."
    # What runs do to versions that are there already.
    TABLE_ROLLED_BACK = "Some tables have their earlier version as head again. The next run rolls the rest back."
    FILE_REMOVED = "`make maintain` has removed some of the files that no kept run names. The rest goes next time."


armed: Callable[[Point], object] | None = None  # what happens at each point, in tests


def crash_point(point: Point) -> None:
    if armed is not None:
        armed(point)

"""`make stream`: Spark watches a landing folder, and each micro-batch is a run of all layers.

Spark's checkpoint says when there is something to do, our commits say which files were taken. So a file is taken once,
whatever was killed when, and a checkpoint that is lost, or of another lake, does no harm.
"""

import math
import queue
import shutil
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from conf.settings import Quality, Settings
from pipelines.bronze.files import landing_state
from pipelines.core import catalogue
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault, StorageFault
from pipelines.core.names import LAYERS
from pipelines.lake import folders, run_log
from pipelines.lake.runs import Run
from pipelines.notify.outcome import Outcome
from pipelines.notify.outlets import notify
from pipelines.run.layers import run_layers
from pipelines.sources.domains import landing_of
from pipelines.spark.session import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery


CHECKPOINT = "_checkpoint"  # in bronze's folder of the domain


SECONDS, LOOK = 1, 5  # between two looks into the landing folder, of Spark and of ours


SCHEMA = "path string, modificationTime timestamp, length long, content binary"


class BatchRequests:
    """A micro-batch that Spark asks for; it waits until `end` tells how it went."""

    def __init__(self) -> None:
        self._ended: queue.Queue[BaseException | None] = queue.Queue()

    def end(self, error: BaseException | None = None) -> None:
        self._ended.put(error)

    def wait(self, closed: threading.Event) -> None:
        while not closed.is_set():
            with suppress(queue.Empty):
                if error := self._ended.get(timeout=SECONDS):
                    raise RuntimeError("the micro-batch failed") from error
                return
        raise RuntimeError("the stream ends")


def stream(settings: Settings, domain: str, once: bool, report: Report) -> None:
    """Takes the files that are there and, unless `once`, those that come, until a signal ends it. Raises a Fault where
    a run fails for another reason than a file that changes or vanishes while it is read."""
    landing = landing_of(settings, domain)
    assert landing is not None
    _check(landing)
    checkpoint = settings.bronze_path / domain / CHECKPOINT
    try:
        with folders.locked(settings, patient=True):
            pass  # the lake's folders are there, and ours, before Spark puts its checkpoint into one
        report.step(f"{domain}: {'taking the files of' if once else 'watching'} {landing}")
        with session(settings) as spark:
            batches = Batches(settings, domain, spark, once, report)
            try:
                _watch(settings, checkpoint, landing, spark, once, batches)
            except CheckpointFault as fault:
                report.step(f"warning: {fault}; begun anew, for what was taken is known without it")
                shutil.rmtree(checkpoint, ignore_errors=True)
                _watch(settings, checkpoint, landing, spark, once, batches)
    except (KeyboardInterrupt, SystemExit):
        report.step(f"{domain}: stopped; what was taken is complete")
    else:
        report.step(f"{domain}: {batches.files:,} file{'' if batches.files == 1 else 's'} taken")


def _check(landing: Path) -> None:
    if not landing.is_dir():
        raise SourceFault(f"there is no landing folder {landing}; make it, or mend LAKEHOUSE_LANDING_PATH")


class CheckpointFault(StorageFault):
    """The stream's checkpoint is damaged, or of another folder."""


def _watch(
    settings: Settings, checkpoint: Path, landing: Path, spark: "SparkSession", once: bool, batches: "Batches"
) -> None:
    """Runs micro-batches as a query asks for them, until it ends. It asks when files come, and reads their names only;
    whether they are old, or gone by then, does not matter to it."""
    from pyspark.errors import PySparkException

    _check(landing)
    asked: queue.Queue[BatchRequests] = queue.Queue()
    closed = threading.Event()

    def ask(_: "DataFrame", __: int) -> None:
        one = BatchRequests()
        asked.put(one)
        one.wait(closed)

    spark.conf.set("spark.sql.files.ignoreMissingFiles", "true")
    options = {"maxFilesPerTrigger": str(settings.stream.max_files_per_trigger), "maxFileAge": "36500d"}
    options["recursiveFileLookup"] = "true"  # folders in it are not partitions
    files = spark.readStream.format("binaryFile").schema(SCHEMA).options(**options).load(str(landing)).select("path")
    writer = files.writeStream.foreachBatch(ask).option("checkpointLocation", str(checkpoint))
    writer = writer.trigger(availableNow=True) if once else writer.trigger(processingTime=f"{SECONDS} seconds")
    try:
        query = writer.start()
    except PySparkException as error:
        raise CheckpointFault(f"the stream's checkpoint {checkpoint} cannot be used") from error
    try:
        _serve(query, asked, batches)
        if failed := query.exception():
            raise CheckpointFault(f"the stream's checkpoint {checkpoint} cannot be used") from failed
    finally:
        closed.set()
        # In a thread of its own: a signal may have come in the middle of this one's question to the JVM.
        stopping = threading.Thread(target=_stop, args=(query,), daemon=True)
        stopping.start()
        stopping.join(5 * SECONDS)


def _stop(query: "StreamingQuery") -> None:
    with suppress(Exception):  # it may have ended, or the JVM
        query.stop()


def _serve(query: "StreamingQuery", asked: "queue.Queue[BatchRequests]", batches: "Batches") -> None:
    """Runs micro-batches in this thread, where signals are heard, as the query asks for them, until it ends. While it
    waits, also for files of which it does not speak: a name that it knows, with other content."""
    looked = -math.inf
    while True:
        try:
            one = asked.get(timeout=SECONDS)
        except queue.Empty:
            active = query.isActive
            due = time.monotonic() - looked > LOOK and query.status["message"].startswith("Waiting")
            if not active or due:
                batches.run_all()
                looked = time.monotonic()
            if active:
                continue
            break
        try:
            batches.run()
        except BaseException as error:
            one.end(error)
            raise
        one.end()


class Batches:
    """Micro-batches, each a run of all layers over the first files that no run has taken."""

    def __init__(self, settings: Settings, domain: str, spark: "SparkSession", once: bool, report: Report) -> None:
        self._once = once
        self._limit = settings.quality.max_quarantined
        self._settings = settings.model_copy(update={"quality": Quality(max_quarantined=1)})
        self._domain, self._spark, self._report = domain, spark, report
        self._said: set[str] = set()
        self._number = 0
        self.files = 0

    def run_all(self) -> None:
        """As many as it takes until no file waits."""
        while self.run():
            pass

    def run(self) -> bool:
        """One micro-batch, if a file waits; whether one did. Where a file changes or vanishes meanwhile, again, where
        the stream is to end for LAKEHOUSE_RETRY_SECONDS."""
        until = time.monotonic() + self._settings.retry_seconds if self._once else math.inf
        while True:
            try:
                return self._run()
            except ContractFault:
                raise
            except SourceFault as fault:
                if time.monotonic() > until:
                    raise
                self._say([str(fault)])
                time.sleep(SECONDS)

    def _run(self) -> bool:
        started = datetime.now(UTC)
        began, at_most, quiet = time.monotonic(), self._settings.stream.max_files_per_trigger, Report(quiet=True)
        todo = landing_state(self._settings, self._domain, catalogue.tables_of("bronze", self._domain), quiet, at_most)
        self._say(quiet.new_warnings())
        # The first time also what a run that was killed left behind between two layers.
        if not todo.new and self._number:
            return False
        runs, _ = run_layers(self._settings, set(LAYERS), quiet, self._spark, only=(self._domain,), at_most=at_most)
        self._number += 1
        seconds = time.monotonic() - began
        self._tell(dict(runs), seconds)
        self._say(notify(self._settings, Outcome(("stream",), self._domain, 0, "done", "", started, seconds)))
        return bool(todo.new)

    def _tell(self, runs: dict[str, Run], seconds: float) -> None:
        bronze, silver, gold = (runs[layer] for layer in LAYERS)
        taken = [one for one in run_log.read_files(self._settings.bronze_path, self._domain) if one.run == bronze.run]
        self.files += len(taken)
        aside = sum(done.set_aside for done in silver.tables)
        self._report.step(
            f"{self._domain}, batch {self._number}: {len(taken):,} file{'' if len(taken) == 1 else 's'}, "
            f"{sum(one.lines for one in taken):,} lines; in quarantine by now {aside:,} rows; "
            f"gold/{gold.run}; {seconds:.1f} s",
            domain=self._domain,
            run=f"gold/{gold.run}",
            set_aside=aside,
            seconds=round(seconds, 3),
        )
        self._say(bronze.warnings)
        for done in (one for one in silver.tables if one.rows_in and one.set_aside / one.rows_in > self._limit):
            said = f"more than LAKEHOUSE_QUALITY__MAX_QUARANTINED={self._limit:g}; `make quality` says why"
            self._report.step(
                f"warning: silver.{done.name}: {done.set_aside:,} of {done.rows_in:,} rows are set aside, {said}"
            )

    def _say(self, warnings: "list[str] | tuple[str, ...]") -> None:
        """Each warning once."""
        for text in warnings:
            if text not in self._said:
                self._said.add(text)
                self._report.step(f"warning: {text}")

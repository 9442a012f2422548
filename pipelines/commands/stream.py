"""`make stream`: Spark watches a landing folder, and each micro-batch is a run of all layers (ADR 20)."""

import math
import os
import queue
import shutil
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from conf.settings import Quality, Settings
from pipelines.bronze.files import landing_state
from pipelines.core.console import Report
from pipelines.core.errors import ContractFault, SourceFault, StorageFault
from pipelines.core.names import LAYERS
from pipelines.lake import run_log
from pipelines.lake.runs import Run
from pipelines.notify.outcome import Outcome
from pipelines.notify.outlets import notify
from pipelines.run.layers import RunRequest, run_layers
from pipelines.spark.faults import heap_fault
from pipelines.spark.session import session

CHECKPOINT = "_checkpoint"  # in bronze's folder of the domain

POLL_SECONDS, LOOK_SECONDS = 1, 5  # Spark looks into the landing folder that often, we ourselves that often

FILE_SCHEMA = "path string, modificationTime timestamp, length long, content binary"


def stream(settings: Settings, domain: str, once: bool, report: Report, given: SparkSession | None = None) -> None:
    """Ingests the files that are there and, unless `once`, those that come, until a signal ends it. Raises a Fault if a
    run fails for another reason than a file that changes or vanishes while it is read."""
    landing = _landing(settings, domain)
    try:
        with run_log.locked(settings, patient=True):
            pass  # makes the lake's folders, closed to others, before Spark puts its checkpoint into one
        report.step(f"{domain}: {'ingesting the files of' if once else 'watching'} {landing}")
        with nullcontext(given) if given else session(settings) as spark:
            batches = Stream(settings, domain, spark, once, report)
            try:
                _watch(batches)
            except CheckpointFault as fault:
                report.step(f"{fault}; it starts over, because the lake knows what was ingested", level="warning")
                shutil.rmtree(batches.checkpoint, ignore_errors=True)
                _watch(batches)
    except (KeyboardInterrupt, SystemExit):
        report.step(f"{domain}: stopped; what was ingested is complete")
    else:
        report.step(f"{domain}: {batches.files:,} file{'' if batches.files == 1 else 's'} ingested")


def _landing(settings: Settings, domain: str) -> Path:
    landing = settings.landing_path / domain
    if not landing.is_dir():
        raise SourceFault(f"there is no landing folder {landing}; make it, or correct LAKEHOUSE_LANDING_PATH")
    for path in (landing, *(Path(folder, name) for folder, names, _ in os.walk(landing) for name in names)):
        if path.is_symlink():
            problem = "is a link to a folder, which Spark would watch, too; put the folder itself there"
            raise SourceFault(f"{path} {problem}")
    return landing


class CheckpointFault(StorageFault):
    """The stream's checkpoint is damaged, or of another folder."""


def _watch(stream: "Stream") -> None:
    """Runs micro-batches as a query asks for them, until it ends. The query asks when files come, and reads their names
    only; it does not matter to it whether they are old, or gone by then."""
    landing = _landing(stream.settings, stream.domain)
    requests: queue.Queue[Future[None]] = queue.Queue()
    closed = threading.Event()

    def ask(_: DataFrame, __: int) -> None:
        request: Future[None] = Future()
        requests.put(request)
        while not closed.is_set():
            with suppress(TimeoutError):
                return request.result(POLL_SECONDS)
        raise RuntimeError("the stream ends")

    spark, unusable = stream.spark, f"the stream's checkpoint {stream.checkpoint} cannot be used"
    options = {"maxFilesPerTrigger": str(stream.settings.stream.max_files_per_trigger), "maxFileAge": "36500d"}
    options |= {"recursiveFileLookup": "true", "ignoreMissingFiles": "true"}  # folders in it are not partitions
    files = spark.readStream.format("binaryFile").schema(FILE_SCHEMA).options(**options).load(str(landing))
    writer = files.select("path").writeStream.foreachBatch(ask).option("checkpointLocation", str(stream.checkpoint))
    every = f"{POLL_SECONDS} seconds"
    writer = writer.trigger(availableNow=True) if stream.once else writer.trigger(processingTime=every)
    try:
        query = writer.start()
    except PySparkException as error:
        raise heap_fault(str(error)) or CheckpointFault(unusable) from error
    try:
        _serve(query, requests, stream)
        if failed := query.exception():
            raise heap_fault(str(failed)) or CheckpointFault(unusable) from failed
    finally:
        closed.set()
        # In a thread of its own: a signal may have interrupted a call of this thread to the JVM.
        stopping = threading.Thread(target=_stop, args=(query,), daemon=True)
        stopping.start()
        stopping.join(5 * POLL_SECONDS)


def _stop(query: StreamingQuery) -> None:
    with suppress(Exception):  # the query or the JVM may have ended
        query.stop()


def _serve(query: StreamingQuery, requests: "queue.Queue[Future[None]]", stream: "Stream") -> None:
    """Runs micro-batches in this thread, where signals are heard, as the query asks for them, until it ends. While the
    query waits, it also looks for files that the query does not report: a known name with other content."""
    looked = -math.inf
    while True:
        try:
            request = requests.get(timeout=POLL_SECONDS)
        except queue.Empty:
            active = query.isActive
            due = time.monotonic() - looked > LOOK_SECONDS and query.status["message"].startswith("Waiting")
            if not active or due:
                stream.run_all()
                looked = time.monotonic()
            if active:
                continue
            break
        try:
            stream.run()
        except BaseException:
            request.set_exception(RuntimeError("the micro-batch failed"))
            raise
        request.set_result(None)


@dataclass
class Stream:
    """A domain's micro-batches, each a run of all layers over the first files that no run has ingested. A stream only
    warns when the quarantine limit is exceeded. `once`: it ends when no file waits. `files`: how many it ingested."""

    settings: Settings
    domain: str
    spark: SparkSession
    once: bool
    report: Report
    files: int = 0
    _number: int = 0
    _warned: set[str] = field(default_factory=set)

    @property
    def checkpoint(self) -> Path:
        return self.settings.bronze_path / self.domain / CHECKPOINT

    def run_all(self) -> None:
        """Runs micro-batches until no file waits."""
        while self.run():
            pass

    def run(self) -> bool:
        """Runs a micro-batch if a file waits, and returns whether one did. If a file changes or vanishes meanwhile, it
        tries again; a stream that is to end does so for LAKEHOUSE_RETRY_SECONDS."""
        until = time.monotonic() + self.settings.retry_seconds if self.once else math.inf
        while True:
            try:
                return self._run()
            except ContractFault:
                raise
            except SourceFault as fault:
                if time.monotonic() > until:
                    raise
                self._warn([str(fault)])
                time.sleep(POLL_SECONDS)

    def _run(self) -> bool:
        settings, domain = self.settings.model_copy(update={"quality": Quality(max_quarantined=1)}), self.domain
        began, started = time.monotonic(), datetime.now(UTC)
        at_most, quiet = settings.stream.max_files_per_trigger, Report(quiet=True)
        waiting = landing_state(settings, domain, quiet, at_most).new
        self._warn(quiet.new_warnings())
        # The first batch runs without files, too: a run that was killed may have left work between two layers.
        if not waiting and self._number:
            return False
        request = RunRequest(domains=(domain,), at_most_files=at_most)
        runs, _ = run_layers(settings, request, quiet, self.spark)
        self._number += 1
        seconds = time.monotonic() - began
        self._show(dict(runs), seconds)
        self._warn(notify(settings, Outcome(("stream",), domain, started, seconds=seconds)))
        return bool(waiting)

    def _show(self, runs: dict[str, Run], seconds: float) -> None:
        bronze, silver, gold = (runs[layer] for layer in LAYERS)
        domain, report = self.domain, self.report
        files = [file for file in run_log.read_files(self.settings.bronze_path, domain) if file.run == bronze.run]
        self.files += len(files)
        aside = sum(table_run.set_aside for table_run in silver.tables)
        report.step(
            f"{domain}, batch {self._number}: {len(files):,} file{'' if len(files) == 1 else 's'}, "
            f"{sum(file.lines for file in files):,} lines; in quarantine by now {aside:,} rows; "
            f"gold/{gold.run}; {seconds:.1f} s",
            domain=domain,
            run=f"gold/{gold.run}",
            set_aside=aside,
            seconds=round(seconds, 3),
        )
        self._warn(bronze.warnings)
        limit = self.settings.quality.max_quarantined
        for table in silver.tables:
            if table.rows_in and table.set_aside / table.rows_in > limit:
                rows = f"{table.set_aside:,} of {table.rows_in:,} rows are set aside"
                over = f"more than LAKEHOUSE_QUALITY__MAX_QUARANTINED={limit:g}; `make quality` says why"
                report.step(f"silver.{table.name}: {rows}, {over}", level="warning")

    def _warn(self, warnings: Iterable[str]) -> None:
        """Reports each warning once."""
        for text in (text for text in warnings if text not in self._warned):
            self._warned.add(text)
            self.report.step(text, level="warning")

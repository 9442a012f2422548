"""The command line in this process: what a child process of it prints and answers, without a JVM of its own."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field

import pytest
from pyspark.sql import SparkSession

from pipelines.cli.main import main
from tests.support.engine import REMOTE
from tests.support.process import Cli, clean_environment


@dataclass
class CliHere(Cli):
    """Words, environment and folder are those of a child process; Spark's work is done in the tests' session."""

    spark: SparkSession | None = None
    errors: io.StringIO = field(default_factory=io.StringIO)  # of the last call, or of the one that goes on

    def __call__(
        self, *words: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        output, self.errors = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(self.errors):
            patch.chdir(self.folder)
            patch.setattr(sys, "stdin", io.StringIO(stdin))
            for name in {*os.environ} - {REMOTE}:
                patch.delenv(name)
            for name, value in (clean_environment(self.folder) | (env or {})).items():
                patch.setenv(name, value)
            code = main(list(words), self.spark)
        return subprocess.CompletedProcess(words, code, output.getvalue(), self.errors.getvalue())

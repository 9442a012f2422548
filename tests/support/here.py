"""The command line as scenes call it."""

from dataclasses import dataclass

from pyspark.sql import SparkSession

from tests.support.process import Cli


@dataclass
class CliHere(Cli):
    """Words, environment and folder are those of a child process."""

    spark: SparkSession | None = None

"""What `catalog` prints works in a shell: Spark's own programs ask by name, and know nothing else of the lake."""

import re
import subprocess

import pytest

from conf.settings import PROJECT
from tests.support.lake import Lake, versions
from tests.support.process import clean_environment, start

QUERIES = """DESCRIBE HISTORY gold.movimento_flat; SELECT concat('v', count(*)) FROM gold.movimento_flat VERSION AS OF 0;
SHOW TABLES IN silver; DESCRIBE silver.conta; DROP TABLE silver.conta; DROP DATABASE gold CASCADE; SHOW DATABASES"""


@pytest.mark.long
@pytest.mark.jvm
def test_spark_sql_asks_by_name_as_printed_and_no_file_goes_with_a_name(keyed_lake: Lake) -> None:
    before, files = versions(keyed_lake), set(keyed_lake.folder.rglob("*.parquet"))
    process = start(keyed_lake, "catalog")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    catalog = keyed_lake.settings().catalog_path
    assert [path.stat().st_mode & 0o777 for path in (catalog, catalog / "spark.conf")] == [0o700, 0o600]
    (typed,) = re.findall(r"^PATH=.*?^  -e '[^']+(?=')", output, re.M | re.S)
    environment = clean_environment(keyed_lake.folder)
    for name in ("PYTHONPATH", "LAKEHOUSE_SPARK__CONF"):
        del environment[name]
    query = QUERIES.replace("'", "'\\''")
    result = subprocess.run(
        ["sh", "-c", f"{typed}; {query}'"],
        cwd=keyed_lake.folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    lines = result.stdout.splitlines()
    assert result.returncode == 0 and lines[0] == "200", result.stderr
    assert "v200" in lines and "gold/1" in lines[1] and {"conta", "conta__history"} <= set(lines)
    assert re.search(r"^id_conta +\t.*\tAccount id", result.stdout, re.M)
    assert lines[-3:] == ["bronze", "default", "silver"]
    assert (versions(keyed_lake), set(keyed_lake.folder.rglob("*.parquet"))) == (before, files)
    left = {path.name for path in keyed_lake.folder.iterdir()} - {"lake", "export", "landing"}
    assert left == set() and not (PROJECT / "derby.log").exists()

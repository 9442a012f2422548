"""Writes what docker-compose.yml reads, once: `.env`, which has no secret, and files of secrets in `.secrets`.

A file that is there stays as it is. Containers read a secret as another user: the file is open to all, its folder to
its owner only.
"""

import secrets
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SETTINGS = """\
# Written once by `make env`, yours from then on. It has no secret: those are files in .secrets. See docs/reference.md.

# The source: the server of `make up PROFILE=demo`. Name your own, and write its password into
# .secrets/lakehouse_postgres__password.
LAKEHOUSE_POSTGRES__HOST=postgres
LAKEHOUSE_POSTGRES__DATABASE=cooperativa
LAKEHOUSE_POSTGRES__USER=leitor

# Where lake, export and landing are: a volume, or a folder to which user 10001 may write.
#DATA=/srv/lakehouse
"""
SPARK = """\
spark.authenticate true
spark.authenticate.secret {}
spark.network.crypto.enabled true
spark.master.rest.enabled false
"""


def main(project: Path) -> None:
    folder = project / ".secrets"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o700)
    write(project / ".env", SETTINGS, 0o600)
    for name in ("postgres_password", "seeder_password", "lakehouse_postgres__password"):
        write(folder / name, secrets.token_urlsafe(24), 0o444)
    write(folder / "lakehouse_alert__webhook_url", "", 0o444)  # empty: no alert is sent
    write(folder / "spark-defaults.conf", SPARK.format(secrets.token_urlsafe(24)), 0o444)


def write(path: Path, text: str, mode: int) -> None:
    """Writes a file unless it is there, and says what it did."""
    shown = f".secrets/{path.name}" if path.parent.name == ".secrets" else path.name
    try:
        with path.open("x", encoding="utf-8") as file:
            path.chmod(mode)
            file.write(text)
    except FileExistsError:
        print(f"{shown} is there already")
    else:
        print(f"{shown} written")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else PROJECT)

"""The image, built here and run as closed as a container can be, and the demo of docker-compose.yml."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import conf
from conf.settings import PROJECT, Postgres
from pipelines.sources.postgres import embedded
from tests.support.process import Cli
from tools import env

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman builds and runs the image"),
    pytest.mark.skipif(os.getuid() != 0, reason="the folders of containers are given to their user"),
]
DIGEST = re.compile("@sha256:[0-9a-f]{64}")
PYTHON = (
    "docker.io/library/" + re.findall("^FROM (python:.*) AS", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)[0]
)
CLOSED = ["--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp:noexec", "--cap-drop=ALL"]
CLOSED.append("--security-opt=no-new-privileges")
LIMITS = (
    'default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]'  # fewer than Podman's, which a container may forbid
)
USER = 10001
# Podman before 4.4 does not start what requires a running container by way of another.
WITHOUT_REQUIRES = """#!/bin/bash
words=(); for word in "$@"; do [[ $word == --requires=* ]] || words+=("$word"); done
exec podman "${words[@]}"
"""


def podman(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    """To a file: what outlives the call would keep a pipe open."""
    with Path(os.environ["PODMAN_SAYS"]).open("w+") as log:
        result = subprocess.run(["podman", *words], stdout=log, stderr=subprocess.STDOUT, timeout=900)
        log.seek(0)
        text = log.read()
    assert not check or result.returncode == 0, text[-3000:]
    return subprocess.CompletedProcess(words, result.returncode, text)


@pytest.fixture(scope="module", autouse=True)
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The image, on the true bases where a registry gives them, else on stand-ins."""
    folder = tmp_path_factory.mktemp("podman")
    runtime = '[engine]\nruntime = "runc"\n' if shutil.which("runc") else ""
    (folder / "containers.conf").write_text(f"[containers]\n{LIMITS}\n{runtime}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
        patch.setenv("PODMAN_SAYS", str(folder / "said"))
        if podman("image", "exists", PYTHON, check=False).returncode and podman("pull", PYTHON, check=False).returncode:
            if not shutil.which("debootstrap"):
                pytest.skip("there is neither a registry nor debootstrap")
            subprocess.run([PROJECT / "tests/process/standin.sh", folder], check=True)
        given = [f"--build-arg=VERSION={conf.__version__}", "--build-arg=REVISION=0123abc"]
        file = f"--file={usable('Dockerfile', folder)}"
        podman("build", "--network=host", "--target=lakehouse", "--tag=lakehouse", *given, file, str(PROJECT))
        yield


def usable(name: str, folder: Path) -> Path:
    """A copy of a file that names images, on stand-ins without their digests, which those do not have."""
    copy, text = folder / name, (PROJECT / name).read_text()
    is_true = podman("image", "exists", PYTHON, check=False).returncode == 0
    copy.write_text(text if is_true else DIGEST.sub("", text))
    return copy


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A seeded PostgreSQL that listens on loopback."""
    folder = Path("/var/tmp") / f"lakehouse-image-{os.getpid()}"
    port = free_port()
    try:
        with embedded.server(folder, {"listen_addresses": "127.0.0.1", "port": str(port)}) as server:
            address = server.model_copy(update={"host": "127.0.0.1", "port": port})
            seeded = Cli(tmp_path_factory.mktemp("seed"))(
                "seed", env=settings(address) | {"LAKEHOUSE_CALL__CONFIRM": address.database}
            )
            assert seeded.returncode == 0, seeded.stderr
            yield address
    finally:
        embedded.remove(folder)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def settings(address: Postgres) -> dict[str, str]:
    named = {"HOST": address.host, "PORT": str(address.port), "DATABASE": address.database, "USER": address.user}
    return {f"LAKEHOUSE_POSTGRES__{name}": value for name, value in named.items()}


def strict(data: Path, source: Postgres, **more: str) -> list[str]:
    """Podman's words for a container that may do nothing but work on its folder and talk to the source."""
    data.mkdir(exist_ok=True)
    os.chown(data, USER, USER)
    given = [f"--env={name}={value}" for name, value in (settings(source) | more).items()]
    return ["--network=host", *CLOSED, f"--volume={data}:/data", *given]


def test_a_closed_container_makes_the_same_csv_from_the_archive(tmp_path: Path, source: Postgres) -> None:
    outside = Cli(tmp_path)("bronze", "silver", "gold", env=settings(source))
    assert outside.returncode == 0, outside.stderr
    log = json.dumps({"spark.driver.extraJavaOptions": "-Xlog:class+load:file=/data/classes"})
    data = tmp_path / "data"
    result = podman(
        "run", "--rm", *strict(data, source, LAKEHOUSE_SPARK__CONF=log), "lakehouse", "bronze", "silver", "gold"
    )
    assert re.search(r"gold +movimento_flat +10,000 +10,000 +0 ", result.stdout)
    made, wanted = data / "export/movimento_flat.csv", tmp_path / "export/movimento_flat.csv"
    assert made.read_bytes() == wanted.read_bytes() and made.stat().st_uid == USER
    loaded = (data / "classes").read_text().splitlines()
    assert sum("shared objects file (top)" in line for line in loaded) > 0.6 * len(loaded)
    status = podman("run", "--rm", *strict(data, source), "lakehouse", "status")
    assert re.search("gold +cartoes ", status.stdout)


def test_a_stopped_run_ends_with_143_and_leaves_no_process(tmp_path: Path, source: Postgres) -> None:
    name = f"lakehouse-stopped-{os.getpid()}"
    words = ("--detach", f"--name={name}", *strict(tmp_path / "data", source), "lakehouse", "bronze", "silver", "gold")
    podman("run", *words)
    try:
        until = time.monotonic() + 60
        while "bronze.movimento" not in podman("logs", name).stdout and time.monotonic() < until:
            time.sleep(0.1)
        began = time.monotonic()
        podman("stop", "--time=30", name)
        assert podman("wait", name).stdout.strip() == "143" and time.monotonic() - began < 15
        assert podman("inspect", "--format={{.State.Pid}}", name).stdout.strip() == "0"
    finally:
        podman("rm", "--force", name)


def test_a_stream_in_a_container_takes_what_comes_and_is_healthy_while_it_watches(
    tmp_path: Path, source: Postgres
) -> None:
    closed = strict(tmp_path / "data", source, LAKEHOUSE_CALL__DOMAIN="condominio")
    podman("run", "--rm", *closed, "lakehouse", "seed")
    service = YAML(typ="safe", pure=True).load(PROJECT / "docker-compose.yml")["services"]["stream"]
    health, name = json.dumps(service["healthcheck"]["test"][1:]), f"lakehouse-stream-{os.getpid()}"
    podman("run", "--detach", f"--name={name}", *closed, f"--health-cmd={health}", "lakehouse", *service["command"])
    try:
        assert podman("healthcheck", "run", name, check=False).returncode == 1  # there is no Java yet
        until = time.monotonic() + 120
        while "batch 1: 4 files" not in podman("logs", name).stdout:
            assert time.monotonic() < until, podman("logs", name).stdout
            time.sleep(0.5)
        assert podman("healthcheck", "run", name, check=False).returncode == 0
        podman("stop", "--time=30", name)
        assert podman("wait", name).stdout.strip() == "0"
    finally:
        podman("rm", "--force", name)


def test_the_image_has_what_a_run_needs_and_no_more() -> None:
    (image_facts,) = json.loads(podman("image", "inspect", "lakehouse").stdout)
    config = image_facts["Config"]
    assert (config["User"], config["Entrypoint"]) == ("lakehouse", ["python", "-m", "pipelines"])
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert (labels["version"], labels["revision"], labels["licenses"]) == (conf.__version__, "0123abc", "Apache-2.0")
    assert not re.search("PASSWORD|SECRET|TOKEN", json.dumps(config["Env"]))
    look = "command -v gcc cc make; ls -A /app /app/.venv/bin /var/lib/apt/lists ~; echo others own $(find /app ! -user root | wc -l); id"
    listing = podman("run", "--rm", "--entrypoint=sh", "lakehouse", "-c", look, check=False).stdout
    assert f"uid={USER}(lakehouse)" in listing and "bronze\n" in listing
    assert "others own 0\n" in listing
    for unwanted in (
        "/gcc",
        "/cc\n",
        "/make\n",
        "\npip\n",
        ".git\n",
        ".env\n",
        ".secrets",
        "dags\n",
        "tests\n",
        "_Packages",
        ".cache",
    ):
        assert unwanted not in listing, unwanted
    assert image_facts["Size"] < 1.6e9


@pytest.mark.skipif(shutil.which("podman-compose") is None, reason="podman-compose runs the compose file")
def test_the_demo_of_compose_ends_well_and_a_second_start_changes_nothing(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "deploy", tmp_path / "deploy")
    usable("docker-compose.yml", tmp_path)
    env.main(tmp_path)
    wrapper = tmp_path / "podman"
    wrapper.write_text(WITHOUT_REQUIRES)
    wrapper.chmod(0o755)
    data, project = tmp_path / "data", f"lakehouse-{os.getpid()}"
    data.mkdir()
    os.chown(data, USER, USER)
    given = os.environ | {"DATA": str(data), "DEMO_PORT": str(free_port()), "COMPOSE_PROJECT_NAME": project}

    def compose(*words: str) -> None:
        with (tmp_path / "said").open("w") as log:
            command = [
                "podman-compose",
                "--podman-path",
                str(wrapper),
                "--project-name",
                project,
                "--profile",
                "demo",
                *words,
            ]
            result = subprocess.run(command, cwd=tmp_path, env=given, stdout=log, stderr=log, timeout=600)
        assert result.returncode == 0, (tmp_path / "said").read_text()

    def ended(name: str) -> str:
        return podman("wait", f"{project}_{name}_1").stdout.split()[-1]

    try:
        compose("up", "--no-build", "--detach", "postgres")
        until = time.monotonic() + 60  # an old podman does not wait for health
        while podman("healthcheck", "run", f"{project}_postgres_1", check=False).returncode:
            assert time.monotonic() < until, podman("logs", f"{project}_postgres_1").stdout
            time.sleep(0.5)
        files = []
        for _ in range(2):
            compose("up", "--no-build", "--detach")
            assert [ended(name) for name in ("seed", "bronze", "silver", "gold")] == ["0"] * 4
            files.append((data / "export/movimento_flat.csv").stat())
        assert files[0] == files[1] and files[0].st_size > 1_000_000
        assert "are there already" in podman("logs", f"{project}_seed_1").stdout
        states = podman("inspect", *(f"{project}_{name}_1" for name in ("postgres", "seed", "bronze", "gold"))).stdout
        passwords = [path.read_text() for path in (tmp_path / ".secrets").iterdir() if path.name.endswith("password")]
        assert len(passwords) == 3 and not any(password in states for password in passwords)
        ask = ["psql", "--host=/var/run/postgresql", "--user=postgres", "--tuples-only", "--no-align", "cooperativa"]
        rights = "SELECT has_table_privilege('leitor', 'movimento', 'SELECT'), has_table_privilege('leitor', 'movimento', 'INSERT, UPDATE, DELETE'), has_schema_privilege('leitor', 'public', 'CREATE')"
        assert podman("exec", f"{project}_postgres_1", *ask, f"--command={rights}").stdout.strip() == "t|f|f"
    finally:
        compose("down", "--volumes")

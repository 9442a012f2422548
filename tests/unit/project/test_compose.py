"""What `make env` writes and what docker-compose.yml lets a container do."""

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from conf.settings import NAMES, PREFIX, PROJECT
from pipelines.run.call import read_env
from tools import env

COMPOSE: dict[str, Any] = YAML(typ="safe", pure=True).load(PROJECT / "docker-compose.yml")
DOCKERFILE = (PROJECT / "Dockerfile").read_text()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
JOBS = ("bronze", "silver", "gold", "seed", "stream", "airflow")


def secrets(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / ".secrets").iterdir()}


def test_env_is_written_once_and_never_over_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / ".env").write_text("LAKEHOUSE_POSTGRES__HOST=mine\n")
    env.main(tmp_path)
    first = secrets(tmp_path)
    (tmp_path / ".secrets/seeder_password").unlink()
    env.main(tmp_path)
    second = secrets(tmp_path)
    assert (tmp_path / ".env").read_text() == "LAKEHOUSE_POSTGRES__HOST=mine\n"
    assert {name for name in first if first[name] != second[name]} == {"seeder_password"}
    output = capsys.readouterr().out.splitlines()
    assert output[0] == ".env is there already" and output.count(".secrets/seeder_password written") == 2


def test_each_password_is_long_its_own_and_in_a_folder_closed_to_others(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        env.main(tmp_path / name)
    files = {name: secrets(tmp_path / name) for name in ("one", "two")}
    words = [
        re.findall(r"[\w-]{24,}", text)
        for made in files.values()
        for name, text in made.items()
        if name.endswith("password")
    ]
    words += [
        re.findall(r"(?<=authenticate.secret )[\w-]{24,}", made["spark-defaults.conf"]) for made in files.values()
    ]
    assert all(len(password) == 1 for password in words)
    assert len({password[0] for password in words}) == len(words) == 8
    text = (tmp_path / "one/.env").read_text()
    assert not any(password[0] in text for password in words) and "PASSWORD" not in text
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "one").rglob("*")}
    assert (modes.pop(".env"), modes.pop(".secrets"), set(modes.values())) == (0o600, 0o700, {0o444})


def test_what_env_writes_is_what_compose_mounts_and_the_demos_server_needs(tmp_path: Path) -> None:
    env.main(tmp_path)
    assert {secret["file"] for secret in COMPOSE["secrets"].values()} == {
        f".secrets/{name}" for name in secrets(tmp_path)
    }
    given = read_env(tmp_path / ".env")
    assert given == {
        f"{PREFIX}POSTGRES__HOST": "postgres",
        f"{PREFIX}POSTGRES__DATABASE": SERVICES["postgres"]["environment"]["POSTGRES_DB"],
        f"{PREFIX}POSTGRES__USER": "leitor",
    }
    assert "CREATE ROLE leitor" in (PROJECT / "deploy/roles.sql").read_text()
    for name in (".env", ".secrets/"):
        assert f"/{name}" in (PROJECT / ".gitignore").read_text().splitlines()


def test_every_container_is_closed_and_nothing_listens_beyond_this_machine() -> None:
    assert len(SERVICES) == 10
    for name, service in SERVICES.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges"] and "mem_limit" in service, name
        assert service["user"] not in ("root", "0") and "privileged" not in service and "cap_add" not in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "network_mode" not in service, name
        assert service["image"] in ("lakehouse", "lakehouse-airflow") or re.search(
            r":\d+\.\d+-\w+@sha256:[0-9a-f]{64}$", service["image"]
        ), name
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["postgres", "airflow"]


def test_no_environment_has_a_secret_and_each_reader_has_its_own() -> None:
    for name, service in SERVICES.items():
        assert not [name_of for name_of in service["environment"] if re.search("PASSWORD$|SECRET|_URL$", name_of)], name
        assert "env_file" not in service, name
    job = ["lakehouse_postgres__password", "lakehouse_alert__webhook_url", "spark-defaults.conf"]
    assert SERVICES["bronze"]["secrets"] == SERVICES["airflow"]["secrets"] == job
    assert SERVICES["seed"]["secrets"] == [{"source": "seeder_password", "target": "lakehouse_postgres__password"}]
    assert SERVICES["spark-worker-1"]["secrets"] == ["spark-defaults.conf"]


def test_jobs_take_every_setting_of_env_but_secrets_and_folders() -> None:
    wanted = {name for name in NAMES if not name.endswith(("_PATH", "_ROOT", "__PASSWORD", "_URL"))}
    wanted -= {name for name in NAMES if "METASTORE__" in name}  # which no job asks
    for name in JOBS:
        given = SERVICES[name]["environment"]
        assert {setting for setting in given if setting.startswith(PREFIX)} == wanted, name
    for name, value in SERVICES["bronze"]["environment"].items():
        assert not name.startswith(PREFIX) or value.startswith(f"${{{name}:"), name
    assert "make env" in SERVICES["bronze"]["environment"][f"{PREFIX}POSTGRES__HOST"]


def test_layers_wait_for_the_one_before_to_end_well() -> None:
    ended = {"condition": "service_completed_successfully"}
    assert SERVICES["gold"]["depends_on"] == {"silver": ended} and SERVICES["silver"]["depends_on"] == {"bronze": ended}
    assert SERVICES["bronze"]["depends_on"]["seed"] == ended | {"required": False}
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["bronze", "silver", "gold"]


def test_airflow_keeps_its_files_and_the_lake_in_volumes_and_has_one_port_inside_and_out() -> None:
    airflow = SERVICES["airflow"]
    data, home = (volume.rsplit(":", 1) for volume in airflow["volumes"])
    assert [data] == [volume.rsplit(":", 1) for volume in SERVICES["bronze"]["volumes"]]
    assert home[0] in COMPOSE["volumes"] and f"ENV AIRFLOW_HOME={home[1]}\n" in DOCKERFILE
    port = airflow["environment"]["AIRFLOW__API__PORT"]
    assert airflow["ports"] == [f"127.0.0.1:{port}:{port}"] and "depends_on" not in airflow


def test_the_jobs_image_is_what_is_built_without_a_target_and_has_no_airflow() -> None:
    stages = re.split(r"^(?=FROM )", DOCKERFILE, flags=re.MULTILINE)
    assert stages[-1].split() == ["FROM", "lakehouse"]
    made = {service["image"]: service["build"]["target"] for service in SERVICES.values() if "build" in service}
    assert made == {"lakehouse": "lakehouse", "lakehouse-airflow": "airflow"}
    (job,) = (stage for stage in stages if " AS lakehouse\n" in stage)
    assert "rm -r dags tools/serve_airflow.py" in job and "--from=airflow" not in job


def test_every_image_that_is_not_built_here_is_pinned_by_its_digest() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, re.MULTILINE)
    images = {image for image, _ in stages} - {name for _, name in stages}
    built = {service["image"] for service in SERVICES.values() if "build" in service}
    images |= {service["image"] for service in SERVICES.values()} - built
    workflows = [YAML(typ="safe", pure=True).load(path) for path in (PROJECT / ".github/workflows").glob("*.yml")]
    jobs = [job for workflow in workflows for job in workflow["jobs"].values()]
    images |= {service["image"] for job in jobs for service in job.get("services", {}).values()}
    assert [image for image in images if not re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", image)] == []
    assert {image.partition(":")[0] for image in images} == {"python", "postgres"} and len(images) == 2


def test_make_stops_and_shows_the_services_of_every_profile() -> None:
    (known,) = re.findall(r"^PROFILES := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert set(known.split()) == {profile for service in SERVICES.values() for profile in service.get("profiles", ())}

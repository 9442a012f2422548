"""One run, one server: several hosts, parameters of libpq that both drivers must know."""

import socket
from contextlib import ExitStack, closing, nullcontext

import adbc_driver_manager as adbc
import adbc_driver_postgresql
import pytest

from conf.connection import KEYWORDS
from conf.settings import PROJECT, Postgres, load
from pipelines.core.errors import SourceFault
from pipelines.sources.postgres.connection import connect, dsn, reading
from pipelines.sources.postgres.reader import _rows
from tests.support.lake import Lake
from tests.support.proxy import Proxy

USABLE = {
    "hostaddr": "127.0.0.1",
    "options": "-c work_mem=8MB",
    "client_encoding": "UTF8",
    "channel_binding": "prefer",
    "require_auth": "none",
    "target_session_attrs": "read-write",
    "load_balance_hosts": "random",
    "sslnegotiation": "postgres",
    "sslcertmode": "allow",
    "gssencmode": "prefer",
    "ssl_min_protocol_version": "TLSv1.2",
    "ssl_max_protocol_version": "TLSv1.3",
}
NOT_PASSED = {"service", "replication", "gsslib", "requirepeer"}  # refused, or of other systems and sockets


def test_both_drivers_take_every_parameter_that_is_passed_on(server: Postgres) -> None:
    given = {name: USABLE.get(name, "1") for name in KEYWORDS if name not in NOT_PASSED}
    with Proxy(server) as proxy:
        address = proxy.address.with_keywords(**given)
        with connect(address) as connection:
            assert connection.rows("SHOW work_mem") == [("8MB",)]
            assert connection.rows("SELECT current_setting('application_name') LIKE '1 %'") == [(True,)]
        driver = adbc_driver_postgresql._driver_path()
        with ExitStack() as stack:
            base = stack.enter_context(closing(adbc.AdbcDatabase(driver=driver, uri=dsn(address))))
            reader = stack.enter_context(closing(adbc.AdbcConnection(base)))
            assert _rows(reader, "SELECT current_setting('work_mem')") == [("8MB",)]


@pytest.mark.parametrize(("wanted", "is_there"), [("read-write", True), ("primary", True), ("read-only", False)])
def test_what_we_set_does_not_make_a_server_another_kind(database: Postgres, wanted: str, is_there: bool) -> None:
    asked = database.with_keywords(target_session_attrs=wanted)
    expected = nullcontext() if is_there else pytest.raises(SourceFault, match="target_session_attrs")
    with expected, reading(asked) as connection:
        assert connection.rows("SELECT 1") == [(1,)]


def test_all_connections_of_a_run_go_to_one_of_several_hosts(keyed: Lake) -> None:
    with Proxy(keyed.address) as first, Proxy(keyed.address) as second:
        hosts = first.address.model_copy(update={"host": "127.0.0.1,127.0.0.1"})
        hosts = hosts.model_copy(update={"port": f"{first.address.port},{second.address.port}"})
        keyed.address = hosts.with_keywords(load_balance_hosts="random", target_session_attrs="prefer-standby")
        keyed.run("bronze")
        assert sorted(len(proxy.links) > 3 for proxy in (first, second)) == [False, True]
        assert keyed.last("bronze").source == keyed.address.address


def test_a_host_that_is_not_there_or_does_not_answer_is_passed_over(keyed: Lake) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, Proxy(keyed.address) as proxy:
        ports = f"1,{mute.getsockname()[1]},{proxy.address.port}"
        hosts = proxy.address.model_copy(update={"host": ",".join(["127.0.0.1"] * 3), "port": ports})
        with connect(hosts.with_keywords(connect_timeout="1")) as connection:
            assert connection.server.port == proxy.address.port
            assert connection.rows("SELECT 1") == [(1,)]


def test_a_server_of_another_kind_than_asked_for_is_named(database: Postgres) -> None:
    wrong = database.with_keywords(target_session_attrs="standby")
    with pytest.raises(SourceFault, match="no server is what target_session_attrs asks for"), connect(wrong):
        pass


def test_an_url_of_several_hosts_is_read(database: Postgres) -> None:
    url = f"postgresql://{database.user}@/{database.database}?host=/nowhere,{database.host}&port=1,{database.port}"
    settings, _ = load({"DATABASE_URL": url}, base=PROJECT)
    assert settings.postgres is not None
    with connect(settings.postgres) as connection:
        assert connection.rows("SELECT 1") == [(1,)]

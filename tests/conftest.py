"""Fixtures and rules that hold for every test."""

import os
import secrets
from collections.abc import Generator, Iterator
from typing import TypeVar

import hypothesis
import psycopg
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from sqlalchemy.engine import make_url

from tests import beds

beds.load_environment(os.environ)

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile(
    "any-machine",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any-machine")

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

SKIP_IS_FAILURE = os.environ.get(beds.NO_SKIP) == "1"


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the only loop Perijove promises to work on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _loop_is_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Fail a unit test in which our code blocks the event loop.

    Short reads of SQLite run on the loop by design, in the one module that decides it.
    """
    if not request.path.is_relative_to(beds.ROOT / "tests/unit"):
        yield
        return
    with blockbuster_ctx("perijove") as guard:
        _allow_short_reads(guard)
        yield


def _allow_short_reads(guard: BlockBuster) -> None:
    for name, function in guard.functions.items():
        if name.startswith(("sqlite3.", "os.", "threading.")):
            function.can_block_in(
                "perijove/db/core.py",
                {"__aenter__", "__aexit__", "open_database", "read", "write"},
            )


@pytest.fixture
def postgresql_url() -> Iterator[str]:
    """Give the URL of an empty PostgreSQL database that is dropped afterwards."""
    if reason := beds.missing(("postgresql",)):
        pytest.skip(reason)
    server = os.environ["PERIJOVE_TEST_POSTGRESQL"]
    name = f"test_{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        try:
            yield make_url(server).set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `scripts/test.py` run the tests in two lanes."""
    parser.addoption("--lane", choices=("platforms", "rest"), help="run one lane of the tests only")


def _lane(item: pytest.Item) -> str:
    """Return ``platforms`` for what uses something that a machine has only one of."""
    return "rest" if beds.SINGLE.isdisjoint(_needs(item)) else "platforms"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a need that nobody knows, before anything runs; keep the tests of one lane."""
    for item in items:
        if unknown := set(_needs(item)) - beds.NEEDS.keys():
            known = ", ".join(sorted(beds.NEEDS))
            raise pytest.UsageError(f"{item.nodeid} needs {unknown}; known are {known}")
    if (lane := config.getoption("--lane")) is not None:
        others = [item for item in items if _lane(item) != lane]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if _lane(item) == lane]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet."""
    if reason := beds.missing(_needs(item)):
        pytest.skip(reason)


def _needs(item: pytest.Item) -> tuple[str, ...]:
    return tuple(name for mark in item.iter_markers("needs") for name in mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure where nothing may stay untested."""
    report = yield
    return _refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure where nothing may stay untested."""
    report = yield
    return _refuse_skip(report)


def _refuse_skip(report: Report) -> Report:
    if SKIP_IS_FAILURE and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a skip is a failure here: {report.longrepr}"
    return report

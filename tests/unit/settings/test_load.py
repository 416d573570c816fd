"""Reading the configuration: strict, complete in its complaints, and never showing a secret."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from perijove.auth.demo import DemoSettings
from perijove.domain.errors import ConfigError
from perijove.settings import Settings, load, origin_of, origins, plugin
from perijove.spawners.local import LocalSpawner
from perijove.spawners.local.sections import LocalSettings


def read(
    directory: Path, text: str, environ: Mapping[str, str] | None = None, **overrides: Any
) -> Settings:
    """Load a configuration file with this text."""
    file = directory / "perijove.toml"
    file.write_text(text)
    return load(file, environ or {}, overrides)


def faults(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return what is wrong with a configuration file, line by line."""
    with pytest.raises(ConfigError) as refused:
        read(directory, text, environ)
    head, *lines = str(refused.value).splitlines()
    assert head == f"{directory / 'perijove.toml'}:"
    found = [line.removeprefix("  ") for line in lines]
    assert refused.value.params["faults"] == found
    return found


def test_nothing_given_is_a_working_configuration() -> None:
    """Without a file there is a hub on the loopback address, with passwords and local servers."""
    settings = load(None, {})

    assert settings.hub.bind == "127.0.0.1:8000"
    assert settings.hub.base_path == "/"
    assert settings.hub.admins == ["admin"]
    assert list(settings.auth) == ["native"]
    assert isinstance(settings.spawners["local"], LocalSettings)
    assert settings.spawners["local"].command == ["jupyterhub-singleuser"]


EVERY_FIXED_POINT = """
[hub]
bind = "127.0.0.1:8001"
base_path = "/jupyter"
api_bind = "127.0.0.1:9001"
database = "sqlite:////srv/hub.sqlite"
data_dir = "/srv/perijove"
admins = ["admin", "ann"]
tokens = [
    { name = "culler", service = "culler", token = "0123456789", scopes = ["list:users"] },
    { name = "bench", user = "ann", token = "abcdefghij" },
]
[proxy]
trusted_proxies = ["10.0.0.0/8", "::1/128"]
processes = 2
[auth.demo]
password = "fixed:open sesame"
[spawners.local]
kind = "local"
command = ["jupyterhub-singleuser", "--debug"]
[[profiles]]
name = "small"
title = { en = "Small", fr = "Petit" }
cpu = 1
memory = "4 GiB"
time = "8 h"
ui = "lab"
environment = { OMP_NUM_THREADS = "1" }
[profiles.fields]
cpu = { min = 1, max = 4 }
[[policies]]
groups = ["students"]
named_servers = 0
idle_timeout = "2 h"
"""


def test_every_fixed_point_is_read(tmp_path: Path) -> None:
    """The keys that others script against mean what they are documented to mean."""
    settings = read(tmp_path, EVERY_FIXED_POINT)

    hub = settings.hub
    assert (hub.bind, hub.base_path, hub.api_bind) == (
        "127.0.0.1:8001",
        "/jupyter/",
        "127.0.0.1:9001",
    )
    assert hub.database.get_secret_value() == "sqlite:////srv/hub.sqlite"
    assert hub.data_dir == Path("/srv/perijove")
    assert [(t.name, t.user, t.service, t.scopes) for t in hub.tokens] == [
        ("culler", None, "culler", ["list:users"]),
        ("bench", "ann", None, ["inherit"]),
    ]
    assert [str(net) for net in settings.proxy.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert settings.proxy.processes == 2
    assert settings.auth == {"demo": DemoSettings(password="fixed:open sesame")}
    assert settings.spawners["local"].command == ["jupyterhub-singleuser", "--debug"]
    (profile,) = settings.profiles
    assert profile.title == {"en": "Small", "fr": "Petit"}
    assert profile.memory == 4 * 2**30
    assert profile.time == timedelta(hours=8)
    assert profile.fields.cpu is not None
    assert profile.fields.cpu.max == 4
    (policy,) = settings.policies
    assert policy.groups == ["students"]
    assert policy.idle_timeout == timedelta(hours=2)


@pytest.mark.parametrize("rule", ["same-as-username", "any", "fixed:x"])
def test_every_rule_of_demo_is_read(tmp_path: Path, rule: str) -> None:
    """The three forms of the trial password."""
    settings = read(tmp_path, f'[auth.demo]\npassword = "{rule}"')

    assert settings.auth == {"demo": DemoSettings(password=rule)}


@pytest.mark.parametrize(
    ("text", "where", "nearest"),
    [
        ("[hubb]", "hubb", "hub"),
        ("[hub]\nbnid = 1", "hub.bnid", "bind"),
        ("[hub]\ntokens = [{ name = 'x', user = 'a', tokn = 'y' }]", "hub.tokens.0.tokn", "token"),
        ("[proxy]\nproceses = 1", "proxy.proceses", "processes"),
        ("[lifecycle]\nmax_busi = 1", "lifecycle.max_busi", "max_busy"),
        ("[auth.demo]\npasswort = 'any'", "auth.demo.passwort", "password"),
        ("[spawners.local]\ncomand = []", "spawners.local.comand", "command"),
        ("[spawners.gpu]\nkind = 'local'\ncomand = []", "spawners.gpu.comand", "command"),
        ("[[profiles]]\nname = 'a'\nmemori = 1", "profiles.0.memori", "memory"),
        (
            "[[profiles]]\nname = 'a'\nfields = { cpu = { maxi = 1 } }",
            "profiles.0.fields.cpu.maxi",
            "max",
        ),
        ("[[policies]]\nidle_timeot = '1 h'", "policies.0.idle_timeot", "idle_timeout"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(
    tmp_path: Path, text: str, where: str, nearest: str
) -> None:
    """A misspelling never passes silently, wherever it is."""
    found = faults(tmp_path, text)

    assert f"{where}: unknown key; did you mean {nearest!r}?" in found


def test_a_key_like_no_other_is_shown_all(tmp_path: Path) -> None:
    """Where nothing is near, the known keys are listed."""
    (fault,) = faults(tmp_path, "[auth.native]\nzork = 1")

    assert fault == "auth.native.zork: unknown key; known are min_length"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[auth.nativ]", "auth.nativ: 'nativ' is not a known kind of auth; did you mean 'native'?"),
        (
            "[spawners.a]\nkind = 'locl'",
            "spawners.a: 'locl' is not a known kind of spawners; did you mean 'local'?",
        ),
        ("auth = 5", "auth: must be sections: [auth.NAME]"),
        ("[auth]\nnative = 5", "auth.native: must be a section: [auth.native]"),
        ("[spawners]", "spawners: there must be one at least"),
        ("[hub]\nbind = 'here'", "hub.bind: must be an address, host:port"),
        ("[hub]\nbind = '::1:80'", "hub.bind: must have brackets around an IPv6 host: [::1]:8000"),
        ("[hub]\napi_bind = ':99999'", "hub.api_bind: must be an address, host:port"),
        ("[hub]\nurl = 'hub.example.org'", "hub: url must begin with http:// or https://"),
        (
            "[hub]\nurl = 'https://a.org/'\nbase_path = '/j/'",
            "hub: url must end with base_path, /j/",
        ),
        ("[hub]\nafter_login = 'x'", "must be 'form', 'default-server' or 'running-server'"),
        ("[[profiles]]\ncpu = 1", "profiles.0.name: is missing"),
        (
            "[[policies]]\nprofiles = 5",
            "policies.0.profiles: must be a valid list, or must be 'unlimited'",
        ),
        (
            "[proxy]\ntrusted_proxies = ['x']",
            "proxy.trusted_proxies.0: is not a valid IPv4 network, or is not a valid IPv6 network",
        ),
    ],
)
def test_a_fault_says_where_and_what(tmp_path: Path, text: str, says: str) -> None:
    """Every complaint is one line that a person can act on."""
    (fault,) = faults(tmp_path, text)

    assert says in fault


def test_every_fault_is_said_at_once(tmp_path: Path) -> None:
    """One run is enough to find all that is wrong, in the core and in plug-ins alike."""
    found = faults(
        tmp_path,
        "[hub]\nbnid = 1\nadmins = 'ann'\n[auth.demo]\npasswort = 'x'\npassword = 'zork'\n"
        "[spawners.local]\ncomand = []\nstop_grace = 'x'\n[spawners.b]\nkind = 'zork'\n"
        "[[profiles]]\nmemori = 1\n",
    )

    assert {line.partition(":")[0] for line in found} == {
        "hub.bnid",
        "hub.admins",
        "auth.demo.passwort",
        "auth.demo.password",
        "spawners.local.comand",
        "spawners.local.stop_grace",
        "spawners.b",
        "profiles.0.name",
        "profiles.0.memori",
    }


def test_what_is_not_toml_is_said_with_its_place(tmp_path: Path) -> None:
    """A fault of the syntax names the file and the line."""
    with pytest.raises(ConfigError, match=r"perijove.toml: not TOML: .*line 2"):
        read(tmp_path, "[hub]\nbind = \n")


def test_what_is_not_text_is_said(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are a fault of the file, not of the program."""
    file = tmp_path / "perijove.toml"
    file.write_bytes(b"[hub]\ntitle = '\xff'")
    with pytest.raises(ConfigError, match="not TOML"):
        load(file, {})


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """A wrong path is named."""
    with pytest.raises(ConfigError, match=r"absent.toml: No such file"):
        load(tmp_path / "absent.toml", {})


# --- the environment --------------------------------------------------------------------------


def test_the_environment_lies_over_the_file(tmp_path: Path) -> None:
    """Text, numbers, lists, tables and sections that the file has not can all be given."""
    settings = read(
        tmp_path,
        "[hub]\nbind = '127.0.0.1:1'\ntitle = 'File'",
        {
            "PERIJOVE__HUB__BIND": "127.0.0.1:2",
            "PERIJOVE__HUB__ADMINS": '["ann", "bob"]',
            "PERIJOVE__HUB__LOGOUT_STOPS_SERVERS": "true",
            "PERIJOVE__HUB__LINKS": '{ help = "https://help.example.org" }',
            "PERIJOVE__PROXY__PROCESSES": "3",
            "PERIJOVE__LIFECYCLE__MAX_BUSY": "1 h 30 min",
            "PERIJOVE__AUTH__DEMO__PASSWORD": "fixed:a = [b",
            "PERIJOVE__SPAWNERS__LOCAL__STOP_GRACE": "2.5",
            "PERIJOVE_CONFIG": "unrelated",
            "perijove__hub__title": "unrelated",
        },
    )

    assert settings.hub.bind == "127.0.0.1:2"
    assert settings.hub.title == "File"
    assert settings.hub.admins == ["ann", "bob"]
    assert settings.hub.logout_stops_servers
    assert settings.hub.links == {"help": "https://help.example.org"}
    assert settings.proxy.processes == 3
    assert settings.lifecycle.max_busy == timedelta(minutes=90)
    assert settings.auth == {"demo": DemoSettings(password="fixed:a = [b")}
    assert settings.spawners["local"].stop_grace == 2.5


def test_the_command_line_lies_over_the_environment(tmp_path: Path) -> None:
    """Who types an option means it."""
    settings = read(
        tmp_path, "", {"PERIJOVE__HUB__BIND": "127.0.0.1:2"}, hub={"bind": "127.0.0.1:3"}
    )

    assert settings.hub.bind == "127.0.0.1:3"


def test_a_fault_of_a_variable_names_the_variable(tmp_path: Path) -> None:
    """A fault that is not in the file is not looked for there."""
    found = faults(
        tmp_path, "[hub]", {"PERIJOVE__HUB__BNID": "x", "PERIJOVE__PROXY__PROCESSES": "many"}
    )

    assert found == [
        "hub.bnid: unknown key; did you mean 'bind'? (set by PERIJOVE__HUB__BNID)",
        "proxy.processes: must be a valid integer, unable to parse string as an integer"
        " (set by PERIJOVE__PROXY__PROCESSES)",
    ]


def test_a_variable_below_a_plain_value_is_refused() -> None:
    """A key cannot be both a value and a section."""
    with pytest.raises(ConfigError, match="PERIJOVE__HUB__TITLE__X: title is no section"):
        load(None, {"PERIJOVE__HUB__TITLE": "a", "PERIJOVE__HUB__TITLE__X": "b"})


def test_no_fault_shows_a_secret(tmp_path: Path) -> None:
    """A password or token that is refused is not printed."""
    found = faults(
        tmp_path,
        "[hub]\ntokens = [{ name = 'short', user = 'a', token = 'hush' }]\n"
        "[auth.demo]\npassword = 'hush-hush'\n",
        {"PERIJOVE__HUB__DATABASE": "[1, 'hush']"},
    )

    assert len(found) == 3
    assert not any("hush" in line for line in found)


# --- origins ----------------------------------------------------------------------------------


def test_origins_are_known_of_every_key(tmp_path: Path) -> None:
    """Each came from the file, a variable or nowhere; a part, from where the whole did."""
    file = tmp_path / "perijove.toml"
    file.write_text(
        "[hub]\nbind = '127.0.0.1:1'\ntitle = 'a'\n[auth.demo]\npassword = 'any'\n"
        "[[profiles]]\nname = 'a'\n"
    )
    environ = {"PERIJOVE__HUB__TITLE": "b", "PERIJOVE__AUTH": "{ native = { min_length = 12 } }"}
    found = origins(file, environ)

    assert origin_of("hub.bind", found) == str(file)
    assert origin_of("hub.title", found) == "PERIJOVE__HUB__TITLE"
    assert origin_of("hub.footer", found) == "default"
    assert origin_of("auth.native.min_length", found) == "PERIJOVE__AUTH"
    assert origin_of("auth.demo.password", found) == "PERIJOVE__AUTH"
    assert origin_of("profiles.0.name", found) == str(file)
    assert list(load(file, environ).auth) == ["native"]


def test_plug_ins_are_found_by_name() -> None:
    """An entry point leads to its class; an unknown one names the nearest."""
    assert plugin("spawners", "local") is LocalSpawner
    with pytest.raises(ConfigError, match="did you mean 'null'"):
        plugin("spawners", "nul")


def test_storage_needs_a_platform_with_volumes(tmp_path: Path) -> None:
    """A profile that keeps something on a platform that cannot is refused before the start."""
    profile = '[[profiles]]\nname = "a"\n[profiles.storage]\nsize = "2 GiB"\nretention = "7 d"\n'
    assert faults(tmp_path, f"{profile}[spawners.local]\n") == [
        "profiles.0.storage: profile 'a': spawner 'local' keeps no volumes"
    ]
    settings = read(tmp_path, f'{profile}[spawners.docker]\nimage = "x:1"\n')
    storage = settings.profiles[0].storage
    assert storage is not None
    assert (storage.kept, storage.size, storage.retention) == ("server", 2**31, timedelta(days=7))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('path = "home"', "must be an absolute path such as /home/jovyan"),
        ('path = "/home/../etc"', "must be an absolute path such as /home/jovyan"),
        ('path = "/"', "must be an absolute path such as /home/jovyan"),
        ('storage_class = "a b"', "must be letters, digits, '.', '_' and '-'"),
        ('size = "1 KiB"', "must be greater than or equal to 1048576"),
    ],
)
def test_storage_is_checked(tmp_path: Path, line: str, fault: str) -> None:
    """Where and how much is kept is checked with the rest, and the culprit is named."""
    text = (
        f'[[profiles]]\nname = "a"\n[profiles.storage]\n{line}\n[spawners.docker]\nimage = "x:1"\n'
    )
    (found,) = faults(tmp_path, text)
    assert found == f"profiles.0.storage.{line.split(maxsplit=1)[0]}: {fault}"

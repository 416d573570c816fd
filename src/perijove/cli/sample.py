"""The sample configuration file, written from the sections themselves."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from fractions import Fraction
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from pydantic import BeforeValidator, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from perijove.kit.config import Section, parse_size, write_seconds
from perijove.kit.quantities import write_size
from perijove.services.choices import ImageSection
from perijove.services.offers import PolicySection, ProfileSection
from perijove.settings import Settings

_HEAD: Final = """\
# Perijove: every key with its default, or with an example where there is none.
# Remove the # before the keys that you change (those have no blank after it).
# A duration is text such as "15 min", a size such as "4 GiB".
"""
_EXAMPLES: Final[Mapping[str, str]] = {
    "hub.logo": '"/etc/perijove/logo.svg"',
    "proxy.tls_cert": '"/etc/perijove/tls.crt"',
    "proxy.tls_key": '"/etc/perijove/tls.key"',
    "proxy.response_timeout": '"2 h"',
    "notify.email": '{ host = "mail.example.org", sender = "hub@example.org" }',
    "notify.webhook": '{ url = "https://chat.example.org/hook", secret_file = "/etc/hook" }',
    "spawners.queue_limit": "3600",
    "spawners.ports": "[20000, 20999]",
    "spawners.port_range": "[49152, 65535]",
    "spawners.homes": '"/srv/homes"',
    "spawners.url": '"http://127.0.0.1:8888"',
    "spawners.docker.url": '"unix:///var/run/docker.sock"',
    "spawners.shm_size": '"1 GiB"',
    "spawners.shared_memory": '"1 GiB"',
    "spawners.entrypoint": '["tini", "--"]',
    "spawners.mtu": "1400",
    "spawners.kubeconfig": '"/etc/perijove/kubeconfig"',
    "spawners.namespace": '"hub"',
    "spawners.kubernetes.network": '{ hub_networks = ["10.1.0.5/32"] }',
    "images.image": '"quay.io/jupyter/datascience-notebook:2026-11-16"',
    "images.title": '{ en = "Data science", fr = "Science des données" }',
    "images.packages": '["Python 3.13", "R 4.5", "Julia 1.12"]',
    "profiles.name": '"small"',
    "profiles.spawner": '"docker"',
    "profiles.title": '{ en = "Small", fr = "Petit", es = "Pequeño", pt = "Pequeno" }',
    "profiles.cpu": "1",
    "profiles.memory": '"4 GiB"',
    "profiles.time": '"8 h"',
    "profiles.gpu": "0",
    "profiles.account": '"physics"',
    "profiles.partition": '"main"',
    "profiles.qos": '"normal"',
    "profiles.reservation": '"course"',
    "profiles.gpu_type": '"a100"',
    "profiles.ui": '"lab"',
    "profiles.queue_limit": '"2 h"',
    "profiles.image": '"datascience"',
    "profiles.storage": '{ kept = "user", size = "10 GiB" }',
    "profiles.fields": '{ cpu = { min = 1, max = 4 }, time = { max = "12 h" } }',
    "policies.name": '"students"',
    "policies.profiles": '["small"]',
    "policies.named_servers": "2",
    "policies.default_server": "true",
    "policies.server_name_length": "20",
    "policies.server_name_pattern": '"[a-z-]+"',
    "policies.cpu": "4",
    "policies.memory": '"8 GiB"',
    "policies.time": '"12 h"',
    "policies.gpu": "0",
    "policies.gpu_types": '["a100"]',
    "policies.accounts": '["physics"]',
    "policies.partitions": '["main"]',
    "policies.qos": '["normal"]',
    "policies.images": '["datascience", "registry.example.org/teaching/*"]',
    "policies.storage": '"2 GiB"',
    "policies.storage_kept": '"server"',
    "policies.environments": "true",
    "policies.active_servers": "2",
    "policies.group_active_servers": "100",
    "policies.total_active_servers": '"unlimited"',
    "policies.idle_timeout": '"2 h"',
    "policies.max_age": '"7 d"',
    "policies.queue_limit": '"1 h"',
    "policies.queue_unanswered": '"cancel"',
}
"""What is shown of a key without a default, by section and key."""


def sample_text() -> str:
    """Return the sample: each section's keys with their docstrings, commented out."""
    lines = [_HEAD]
    for name, field in Settings.model_fields.items():
        lines += _comment(field.description)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            lines += [f"[{name}]", *_keys(name, field.annotation)]
    for group in ("auth", "spawners"):
        for entry in sorted(entry_points(group=f"perijove.{group}")):
            model: type[Section] = entry.load().Settings
            lines += [*_comment(model.__doc__), f"#[{group}.{entry.name}]"]
            lines += _keys(group, model, entry.name)
    lines += [*_comment(ImageSection.__doc__), "#[images.datascience]"]
    lines += _keys("images", ImageSection)
    for name, section in (("profiles", ProfileSection), ("policies", PolicySection)):
        lines += [*_comment(section.__doc__), f"#[[{name}]]", *_keys(name, section)]
    return "\n".join(lines) + "\n"


def _keys(section: str, model: type[Section], kind: str = "") -> Iterator[str]:
    for key, field in model.model_fields.items():
        yield from _comment(field.description)
        yield f"#{key} = {_example(section, kind, key) or _default(field)}"
    yield ""


def _example(section: str, kind: str, key: str) -> str:
    if (section, key) == ("spawners", "kind"):
        return _toml(kind)
    names = (f"{section}.{kind}.{key}", f"{section}.{key}")
    return next((_EXAMPLES[name] for name in names if name in _EXAMPLES), "")


def _comment(text: str | None) -> Iterator[str]:
    yield ""
    for line in (text or "").strip().splitlines():
        yield f"# {line.strip()}".rstrip()


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value is None:
        return '""'
    if isinstance(value, int) and _is_size(field):
        return json.dumps(write_size(Fraction(value)))
    return _toml(value)


def _is_size(field: FieldInfo) -> bool:
    return any(
        isinstance(each, BeforeValidator) and each.func is parse_size for each in field.metadata
    )


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(each) for each in value) + "]"
    if isinstance(value, Section):
        return "{}"
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    match value:
        case SecretStr():
            return value.get_secret_value()
        case timedelta():
            return write_seconds(value)
        case Path():
            return str(value)
        case _:
            return value

"""What KubeSpawner's settings in a profile are with us, one by one (anchors 4.8)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from pydantic import ValidationError

from perijove.cli.importing.report import Import, name_of, texts_of
from perijove.cli.importing.sources import Code
from perijove.domain.errors import ConfigError
from perijove.domain.menus import VALUE
from perijove.kit.config import Section
from perijove.kit.quantities import SIZE_UNITS, read_quantity, write_size
from perijove.services.offer_values import json_of

_GPUS: Final = ("nvidia.com/gpu", "amd.com/gpu")
_URLS: Final = {"/lab": "lab", "/tree": "notebook", "/terminals/1": "terminal"}
_SAME: Final = {
    "node_selector": "node_selector",
    "image_pull_policy": "image_pull_policy",
    "priority_class_name": "priority_class",
    "runtime_class_name": "runtime_class",
    "scheduler_name": "scheduler",
    "service_account": "service_account",
    "extra_labels": "labels",
    "extra_annotations": "annotations",
    "volumes": "volumes",
    "volume_mounts": "volume_mounts",
    "init_containers": "init_containers",
    "extra_containers": "sidecars",
}
"""Settings with the same values under another name."""
_LISTS: Final = ("volumes", "volume_mounts", "init_containers", "extra_containers")
_AFFINITY: Final = {
    "node_affinity_preferred": ("nodeAffinity", "preferred"),
    "node_affinity_required": ("nodeAffinity", "required"),
    "pod_affinity_preferred": ("podAffinity", "preferred"),
    "pod_affinity_required": ("podAffinity", "required"),
    "pod_anti_affinity_preferred": ("podAntiAffinity", "preferred"),
    "pod_anti_affinity_required": ("podAntiAffinity", "required"),
}
_SECURITY: Final = {
    "uid": "user",
    "run_as_uid": "user",
    "gid": "group",
    "run_as_gid": "group",
    "fs_gid": "volume_group",
    "allow_privilege_escalation": "gain_privileges",
}
_ELSEWHERE: Final = {
    "cmd": "Set `command` in the section of the spawner; for one profile alone make a further"
    " [spawners.NAME] and name it in the profile.",
    "args": "Set `command` in the section of the spawner.",
    "namespace": "Make a further [spawners.NAME] with that namespace and name it in the profile.",
    "start_timeout": "Set `start_limit` in the section of the spawner: waiting for a node or an"
    " image does not count towards it.",
    "http_timeout": "Set `connect_limit` in the section of the spawner.",
    "lifecycle_hooks": "Put the commands into the image, or into an init container.",
    "extra_container_config": "Say it with `overlay` in [profiles.platform].",
    "pvc_name_template": "Names of volumes are stored, not computed: see [profiles.storage].",
    "storage_access_modes": "Choose a `storage_class` whose volumes are as you need them.",
    "privileged": "Say it with `overlay` in [profiles.platform], if it must be.",
}
_OTHERWISE: Final = "If it matters, say it with `overlay` in [profiles.platform]."
_CODE: Final = "Write what it gives as a value, or leave it out."


@dataclass(slots=True)
class Setting:
    """What overrides become: keys of a profile, or of what a choice sets."""

    values: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    platform: dict[str, Any] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)

    def keys(self) -> dict[str, Any]:
        """Return it as a section has it."""
        parts = {"environment": self.environment, "platform": self.platform}
        parts["storage"] = self.storage
        return {**self.values, **{key: part for key, part in parts.items() if part}}


class Reader:
    """Reads the overrides of one profile or choice; what does not go over is noted."""

    def __init__(
        self,
        result: Import,
        where: str,
        *,
        overrides: type[Section] | None,
        image: str = "",
        base: Mapping[str, Any] | None = None,
        has_choices: bool = False,
    ) -> None:
        """
        `image` is what the image is to be called, if it has no name of its own.

        Of a choice `base` is what its profile overrides; of a profile `has_choices` tells
        whether something may be laid over it.
        """
        self._result = result
        self._where = where
        self._overrides = overrides
        self._image = image
        self._base = {} if base is None else base
        self._is_exact = base is not None or has_choices
        """Whether what is said by omission is to be written: another layer may say it otherwise."""
        self._found = Setting()

    def read(self, given: object) -> Setting:
        """Return what overrides become."""
        if isinstance(given, Code):
            self._differs("", f"this is code ({given})", _CODE)
        for name, value in texts_of(given).items():
            if isinstance(value, Code):
                self._differs(name, f"this is code ({value})", _CODE)
            elif value is not None:
                self._one(name, value)
            elif self._base.get(name) is not None:
                why = "it takes back what the profile says, which no choice can here"
                self._differs(name, why, "Say it in the choices that need it, or make a profile.")
        self._settle(given)
        return self._found

    def _one(self, name: str, value: Any) -> None:
        if name != "environment" and (code := _code_in(value)) is not None:
            self._differs(name, f"there is code in it ({code})", _CODE)
        elif name in _SAME:
            items = list(value.values()) if name in _LISTS and isinstance(value, Mapping) else value
            self._platform(name, _SAME[name], _templates(items))
        elif name in _AFFINITY:
            self._affinity(name, value)
        elif name in _SECURITY:
            security = {**self._found.platform.get("security", {}), _SECURITY[name]: value}
            self._platform(name, "security", security)
        elif (method := _METHODS.get(name)) is not None:
            try:
                method(self, name, value)
            except (ValueError, TypeError, AttributeError) as error:
                self._differs(name, f"{str(value)[:60]!r} was not understood ({error})", _CODE)
        else:
            self._differs(name, "there is no such setting here", _ELSEWHERE.get(name, _OTHERWISE))

    def _differs(self, name: str, why: str, advice: str) -> None:
        self._result.differs(".".join(filter(None, (self._where, name))), why, advice)

    def _platform(self, name: str, key: str, value: Any) -> None:
        """Keep what is said to Kubernetes alone, if it would be understood there."""
        if _has_template(value):
            why = "it is made of the person's or the server's name"
            self._differs(name, why, "Only `{user}` in a `subPath` is known here.")
            return
        try:
            if self._overrides is not None:
                self._overrides.model_validate({key: value})
        except (ValidationError, ConfigError) as error:
            first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            self._differs(name, f"it is not accepted here ({first})", _OTHERWISE)
            return
        self._found.platform[key] = value

    # --- settings with another shape -----------------------------------------------------------

    def _cpu(self, name: str, value: Any) -> None:
        self._found.values["cpu"] = value if VALUE in str(value) else json_of(float(value))

    def _memory(self, name: str, value: Any) -> None:
        if VALUE in str(value):
            self._found.values["memory"] = value
        else:
            self._found.values["memory"] = write_size(_bytes(value))

    def _take_image(self, name: str, value: Any) -> None:
        if VALUE in str(value):
            self._found.values["image"] = value
            return
        image = self._result.add_image(str(value), name_of(str(value)), self._image)
        if image is None:
            self._differs(name, f"{str(value)[:80]!r} is no reference of an image", _CODE)
        else:
            self._found.values["image"] = image

    def _resources(self, name: str, value: Any) -> None:
        others = {}
        for resource, amount in value.items():
            if resource in _GPUS:
                self._found.values["gpu"] = amount if VALUE in str(amount) else int(amount)
                if resource != _GPUS[0]:
                    self._platform(name, "gpu_resource", resource)
            else:
                others[resource] = str(amount)
        if others:
            known = self._found.platform.get("extra_resources", {})
            self._platform(name, "extra_resources", {**known, **others})

    def _variables(self, name: str, value: Any) -> None:
        for variable, text in value.items():
            if isinstance(text, Code):
                self._differs(f"{name}.{variable}", f"this is code ({text})", _CODE)
            elif isinstance(text, Mapping):
                advice = "See `environment_from_secrets` in [profiles.platform]."
                self._differs(f"{name}.{variable}", "its value comes from elsewhere", advice)
            elif _has_template(text):
                why = "it is made of the person's or the server's name"
                advice = "Servers have JUPYTERHUB_USER and JUPYTERHUB_SERVER_NAME."
                self._differs(f"{name}.{variable}", why, advice)
            else:
                self._found.environment[str(variable)] = str(text)

    def _url(self, name: str, value: Any) -> None:
        ui = _URLS.get("/" + str(value).strip("/"))
        if ui is None:
            advice = "There are lab, notebook and terminal: choose with `ui`."
            self._differs(name, f"servers cannot open at {value!r}", advice)
        else:
            self._found.values["ui"] = ui

    def _affinity(self, name: str, value: Any) -> None:
        kind, strength = _AFFINITY[name]
        key = f"{strength}DuringSchedulingIgnoredDuringExecution"
        if name == "node_affinity_required":
            value = {"nodeSelectorTerms": value}
        known = self._found.platform.get("affinity", {})
        inner = {**known.get(kind, {}), key: value}
        self._platform(name, "affinity", {**known, kind: inner})

    def _tolerations(self, name: str, value: Any) -> None:
        renamed = {"tolerationSeconds": "seconds"}
        found = [{renamed.get(key, key): each for key, each in one.items()} for one in value]
        self._platform(name, "tolerations", found)

    def _pull_secrets(self, name: str, value: Any) -> None:
        listed = [value] if isinstance(value, str) else value
        names = [each["name"] if isinstance(each, Mapping) else each for each in listed]
        self._platform(name, "pull_secrets", names)

    def _pod_config(self, name: str, value: Any) -> None:
        self._platform(name, "overlay", {"spec": value})

    def _size(self, name: str, value: Any) -> None:
        # Kubernetes' own units: `10Gi` is binary, `10G` decimal.
        text = str(value)
        unit = "B" if text[-1:].isalpha() else ""
        self._found.storage["size"] = write_size(read_quantity(text + unit, SIZE_UNITS, bare="B"))

    def _storage_class(self, name: str, value: Any) -> None:
        self._found.storage["storage_class"] = str(value)

    def _ignore(self, name: str, value: Any) -> None:
        """Take what is read with another setting, or is always so here."""

    # --- what several settings say together ----------------------------------------------------

    def _settle(self, given: object) -> None:
        """Put guarantees beside limits: with us a limit is guaranteed unless something is said."""
        settings = texts_of(given)
        if settings.get("storage_pvc_ensure") is False:
            self._found.storage.clear()
        for kind, key, limit, guarantee in (
            ("cpu", "cpu_guarantee", "cpu_limit", "cpu_guarantee"),
            ("memory", "memory_guarantee", "mem_limit", "mem_guarantee"),
        ):
            said, most = settings.get(guarantee), settings.get(limit, self._base.get(limit))
            is_same = str(said) == str(most)
            if said is None or isinstance(said, Code) or (is_same and not self._is_exact):
                continue
            try:
                if VALUE in str(said):
                    self._guarantee_written(guarantee, key, is_same=is_same)
                elif most is None and kind not in self._found.values:
                    self._guarantee_alone(guarantee, kind, said)
                else:
                    text = str(said) if kind == "cpu" else str(int(_bytes(said)))
                    self._platform(guarantee, key, text)
            except ValueError:
                self._differs(guarantee, f"{said!r} was not understood", _CODE)

    def _guarantee_written(self, name: str, key: str, *, is_same: bool) -> None:
        if is_same:
            self._platform(name, key, "100 %")
        else:
            why = "what a person writes can be guaranteed only where it is the limit as well"
            self._differs(name, why, _OTHERWISE)

    def _guarantee_alone(self, name: str, kind: str, said: Any) -> None:
        method = self._cpu if kind == "cpu" else self._memory
        method(name, said)
        why = f"a guarantee without a limit: taken as {kind}, which is a limit as well"
        self._differs(name, why, f"Give more as `{kind}` if servers may use more.")


_METHODS: Final[Mapping[str, Callable[[Reader, str, Any], None]]] = {
    "cpu_limit": Reader._cpu,
    "mem_limit": Reader._memory,
    "cpu_guarantee": Reader._ignore,
    "mem_guarantee": Reader._ignore,
    "image": Reader._take_image,
    "extra_resource_limits": Reader._resources,
    "extra_resource_guarantees": Reader._resources,
    "environment": Reader._variables,
    "default_url": Reader._url,
    "tolerations": Reader._tolerations,
    "image_pull_secrets": Reader._pull_secrets,
    "extra_pod_config": Reader._pod_config,
    "storage_capacity": Reader._size,
    "storage_class": Reader._storage_class,
    "storage_pvc_ensure": Reader._ignore,
}


def _bytes(value: Any) -> Fraction:
    """Read a size as KubeSpawner does: `4G` and `4Gi` are powers of 1024."""
    text = str(value)
    return read_quantity(text[:-1] if text.endswith("i") else text, SIZE_UNITS, bare="B")


def _templates(value: Any) -> Any:
    """Return a value with KubeSpawner's name for the person as ours, where we have one."""
    if isinstance(value, Mapping):
        return {
            key: str(each).replace("{username}", "{user}") if key == "subPath" else _templates(each)
            for key, each in value.items()
        }
    return [_templates(each) for each in value] if isinstance(value, list) else value


_TEMPLATES: Final = (
    "{username}",
    "{user_server}",
    "{servername}",
    "{unescaped_",
    "{safe_",
    "{pod_",
)


def _has_template(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_template(each) for each in value.values())
    if isinstance(value, list):
        return any(_has_template(each) for each in value)
    return isinstance(value, str) and any(each in value for each in _TEMPLATES)


def _code_in(value: Any) -> Code | None:
    if isinstance(value, Code):
        return value
    inner = (
        value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    )
    return next((code for each in inner if (code := _code_in(each)) is not None), None)

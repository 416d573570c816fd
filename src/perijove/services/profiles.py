"""What is offered to whom: profiles and policies from the configuration, and the options form."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from perijove.db.locks import hold
from perijove.db.offers import (
    POLICIES,
    PROFILES,
    has_browser_rows,
    list_profiles,
    replace_ours,
)
from perijove.db.servers import Server, find_server
from perijove.domain.errors import ConfigError, Invalid, Refused
from perijove.domain.faults import shown
from perijove.domain.market import Market
from perijove.domain.options import schema, still_valid
from perijove.domain.picks import unavailable
from perijove.domain.policy import Limits, Rule
from perijove.domain.profile import FIELDS, IMAGE, Profile
from perijove.domain.storage import Storage, storage_under
from perijove.services.choices import ImageSection
from perijove.services.discovery import NO_PLATFORMS, Platforms
from perijove.services.limits import find_person, limits_of
from perijove.services.offers import NO_IMAGES, PolicySection, ProfileSection, policy_names

_BUILT_IN_PROFILE: Final[Mapping[str, Any]] = {
    "name": "default",
    "title": {"en": "Default", "fr": "Par défaut", "es": "Predeterminado", "pt": "Padrão"},
    "fields": {"ui": {"default": "lab"}},
}
"""What is offered where the administrator says nothing."""


# --- from the configuration -------------------------------------------------------------------


def load_offers(
    connection: Connection,
    *,
    profiles: Sequence[ProfileSection],
    policies: Sequence[PolicySection],
    spawners: Collection[str],
    now: datetime,
    images: Mapping[str, ImageSection] = NO_IMAGES,
) -> None:
    """
    Make the rows of the configuration file be what it says now; a unit of work of the start.

    Raises `ConfigError` for a name given twice, a profile that names no spawner where there
    are several, and one that names a spawner that is not configured. Nothing is changed then.
    """
    hold(connection, "offers")  # two hubs that start at once load one after the other
    source = "file"
    if not profiles and spawners and not has_browser_rows(connection, PROFILES):
        built_in = {**_BUILT_IN_PROFILE, "spawner": next(iter(spawners))}
        profiles, source = [ProfileSection.model_validate(built_in)], "builtin"
    replace_ours(
        connection,
        PROFILES,
        _profile_bodies(profiles, spawners, images),
        source=source,
        actor="configuration",
        now=now,
    )
    replace_ours(
        connection,
        POLICIES,
        _policy_bodies(policies),
        source="file",
        actor="configuration",
        now=now,
    )


def check(
    profiles: Sequence[ProfileSection],
    policies: Sequence[PolicySection],
    *,
    spawners: Collection[str],
) -> None:
    """Raise the `ConfigError` that `load_offers` would, as far as no database is needed."""
    _profile_bodies(profiles, spawners, NO_IMAGES)
    _policy_bodies(policies)


def _profile_bodies(
    sections: Sequence[ProfileSection],
    spawners: Collection[str],
    images: Mapping[str, ImageSection],
) -> dict[str, Mapping[str, Any]]:
    named = [(each.name, _profile_body(each, spawners, images)) for each in sections]
    return _unique("profile", named)


def _policy_bodies(sections: Sequence[PolicySection]) -> dict[str, Mapping[str, Any]]:
    bodies = [each.body() for each in sections]
    return _unique("policy", list(zip(policy_names(sections), bodies, strict=True)))


def _profile_body(
    section: ProfileSection, spawners: Collection[str], images: Mapping[str, ImageSection]
) -> dict[str, Any]:
    if section.spawner is None and len(spawners) != 1:
        raise ConfigError(
            f"profile {section.name!r} must name its spawner: there are {', '.join(spawners)}"
        )
    body = section.body(next(iter(spawners), ""), images)
    if body["spawner"] not in spawners:
        raise ConfigError(
            f"profile {section.name!r}: there is no spawner {body['spawner']!r},"
            f" only {', '.join(spawners)}"
        )
    return body


def _unique(
    noun: str, named: Sequence[tuple[str, Mapping[str, Any]]]
) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for name, body in named:
        if name in found:
            raise ConfigError(f"{noun} {name!r} is given twice")
        found[name] = body
    return found


# --- what a person may choose among -----------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A profile as one person sees it."""

    profile: Profile
    schema: Mapping[str, Any]
    """Of its options, see `perijove.domain.options.schema`."""
    refusal: Refused | None
    """Why this person cannot start it whatever they choose."""
    storage: Storage | None = None
    """What it keeps for this person; None: nothing."""

    def as_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "name": self.profile.name,
            "revision": self.profile.revision,
            "spawner": self.profile.spawner,
            "title": dict(self.profile.title),
            "description": dict(self.profile.description),
            "schema": dict(self.schema),
            "refused": refusal_as_json(self.refusal),
            **({} if self.storage is None else {"storage": self.storage.as_json()}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionsForm:
    """What the options page shows, and the API says, for one server of one person."""

    offers: Sequence[Offer]
    profile: str
    """The one chosen last time if it can still be had, else the first that can."""
    options: Mapping[str, object]
    """Chosen last time with that profile and still possible; the rest has its default."""
    dropped: Sequence[str] = ()
    """What was chosen last time as well and is not possible any more."""
    platforms: Platforms = NO_PLATFORMS
    """What the profiles start on, where that can tell what it has."""

    def as_json(self) -> dict[str, Any]:
        """Return it as the API shows it."""
        return {
            "profiles": [offer.as_json() for offer in self.offers],
            "chosen": {
                "profile": self.profile,
                "options": dict(self.options),
                "dropped": list(self.dropped),
            },
            "platforms": self.platforms.as_json(),
        }


def options_schema(
    connection: Connection,
    user_id: int,
    server_name: str = "",
    platforms: Platforms = NO_PLATFORMS,
) -> OptionsForm:
    """Return what a person may choose for a server; raises `NotFound` for no such user."""
    person = find_person(connection, user_id)
    limits = limits_of(connection, person)
    offers = offers_under(limits, list_profiles(connection), platforms)
    wish = remembered_by(find_server(connection, user_id, server_name))
    chosen = _find(offers, wish.profile)
    if chosen is not None and chosen.refusal is None:
        market = platforms.of(chosen.profile.spawner)
        options = still_valid(chosen.profile, limits, wish.options, market)
        return OptionsForm(
            offers=offers,
            profile=chosen.profile.name,
            options=options,
            dropped=[name for name in _known(chosen.profile, wish) if name not in options],
            platforms=platforms,
        )
    first = next((offer for offer in offers if offer.refusal is None), None)
    name = first.profile.name if first else ""
    return OptionsForm(offers=offers, profile=name, options={}, platforms=platforms)


def offered(
    connection: Connection, user_id: int, platforms: Platforms = NO_PLATFORMS
) -> list[Offer]:
    """Return every profile a person may see, also those they may not start, with the reason."""
    limits = limits_of(connection, find_person(connection, user_id))
    return offers_under(limits, list_profiles(connection), platforms)


def offers_under(
    limits: Limits, profiles: Sequence[Profile], platforms: Platforms = NO_PLATFORMS
) -> list[Offer]:
    """Return which of `profiles` a person with these limits sees, and how."""
    return [
        Offer(
            profile=profile,
            schema=schema(profile, limits, platforms.of(profile.spawner)),
            refusal=refusal_of(profile, limits, platforms.of(profile.spawner)),
            storage=storage_under(profile.storage, limits),
        )
        for profile in profiles
        if profile.is_seen_by(limits.groups)
    ]


def refusal_of(profile: Profile, limits: Limits, market: Market | None = None) -> Refused | None:
    """Return why a person cannot start a profile, whatever they choose."""
    allowed = limits[Rule.PROFILE]
    if allowed.value is not None and profile.name not in allowed.value:
        return Refused(
            f"profile {profile.name}: policy {allowed.policy} allows only"
            f" {', '.join(allowed.value) or 'none'}",
            rule=str(Rule.PROFILE),
            limit=allowed.value,
            asked=profile.name,
            field="profile",
            policy=allowed.policy,
        )
    return unavailable(profile, limits, market)


def refusal_as_json(refusal: Refused | None) -> dict[str, Any] | None:
    """Return a refusal as data: the rule, the policy, the limit, and what was asked."""
    if refusal is None:
        return None
    return {
        "code": refusal.code,
        "rule": refusal.rule,
        "policy": refusal.params.get("policy"),
        "limit": refusal.limit,
        "asked": refusal.asked,
        "field": refusal.field,
        "message": str(refusal),
    }


def _known(profile: Profile, wish: "Wish") -> list[str]:
    """Return what of a wish the profile could have, as far as its form goes."""
    names = dict.fromkeys((*(menu.name for menu in profile.menus), *FIELDS))
    return [name for name in names if name in wish.options]


def _find(offers: Sequence[Offer], name: str | None) -> Offer | None:
    return next((offer for offer in offers if offer.profile.name == name), None)


# --- what was chosen --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asks for, not checked yet."""

    profile: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What a client of JupyterHub's API sent besides; kept for it, without effect."""


def read_user_options(body: Mapping[str, Any]) -> Wish:
    """
    Return what the wire's ``user_options`` ask for; also what a server remembers.

    Ours are ``{"profile": …, "options": {…}}``; options may also stand beside the profile.
    Raises `Invalid` where these are of the wrong type.
    """
    rest = dict(body)
    profile, options = rest.pop("profile", None), rest.pop("options", None)
    if profile is not None and not isinstance(profile, str):
        raise Invalid("profile must be a text", field="profile", code="profile-type")
    if options is not None and not isinstance(options, Mapping):
        raise Invalid("options must be an object", field="options", code="options-type")
    if options is None:
        options = {name: rest.pop(name) for name in FIELDS if name in rest and name != IMAGE}
    return Wish(profile=profile, options=options, extra=rest)


def choices_in(profile: Profile, extra: Mapping[str, Any]) -> dict[str, object]:
    """
    Return what a client says beside the options that means choices of this profile.

    So clients of KubeSpawner name them (anchors 4.8): ``{"profile": …, "size": "small"}``, or
    ``{"image--unlisted-choice": "registry/name:tag"}``. What means nothing is let be.
    """
    image = profile.fields.get(IMAGE)
    names = [menu.name for menu in profile.menus]
    if image is not None and not image.locked:
        names.append(IMAGE)
    found: dict[str, object] = {}
    for name in names:
        said = extra.get(f"{name}{_UNLISTED}", extra.get(name))
        if said is not None:
            found[name] = said
    return found


_UNLISTED: Final = "--unlisted-choice"


def remembered_by(server: Server | None) -> Wish:
    """Return what was last asked for a server; what cannot be read (any more) is as nothing."""
    try:
        return read_user_options((server.user_options if server else None) or {})
    except Invalid:
        return Wish()


def find_profile(
    limits: Limits,
    profiles: Sequence[Profile],
    name: str | None,
    platforms: Platforms = NO_PLATFORMS,
) -> Profile:
    """
    Return the profile of a name, or for None the first that can be started.

    Raises `Invalid` for one that does not exist or is not for this person to see, and
    `Refused` for one that a policy keeps from them.
    """
    seen = [profile for profile in profiles if profile.is_seen_by(limits.groups)]
    if name is None:
        if not seen:
            raise Invalid("no profile is offered to you", field="profile", code="profile-none")
        free = (
            profile
            for profile in seen
            if refusal_of(profile, limits, platforms.of(profile.spawner)) is None
        )
        name = next(free, seen[0]).name
    profile = next((each for each in seen if each.name == name), None)
    if profile is None:
        raise Invalid(
            f"there is no profile {shown(name)}; there are"
            f" {', '.join(each.name for each in seen[:20]) or 'none'}",
            field="profile",
            code="profile-unknown",
            asked=shown(name),
        )
    if refusal := refusal_of(profile, limits, platforms.of(profile.spawner)):
        raise refusal
    return profile

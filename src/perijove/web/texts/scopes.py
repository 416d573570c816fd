"""Scopes in plain words, for people who are asked to grant them."""

from collections.abc import Mapping
from typing import Final

from perijove.web.texts.catalogue import Texts
from perijove.web.texts.sentence import N_

SCOPES: Final[Mapping[str, str]] = {
    "access:servers": N_("Open servers"),
    "servers": N_("See, start and stop servers"),
    "read:servers": N_("See servers"),
    "start:servers": N_("Start servers"),
    "delete:servers": N_("Stop and delete servers"),
    "admin:servers": N_("Manage servers, with their inner state"),
    "users": N_("See and change people's accounts"),
    "read:users": N_("See accounts"),
    "read:users:name": N_("See user names"),
    "read:users:groups": N_("See the groups of people"),
    "read:users:activity": N_("See when people were last active"),
    "users:activity": N_("Report activity"),
    "list:users": N_("List people"),
    "admin:users": N_("Make and delete accounts"),
    "tokens": N_("Make and revoke tokens"),
    "read:tokens": N_("See tokens, without their secret"),
    "groups": N_("See and change groups"),
    "admin:groups": N_("Make and delete groups"),
    "read:metrics": N_("Read the metrics of this hub"),
    "read:hub": N_("See how this hub is set up"),
    "admin-ui": N_("Open the admin page"),
    "shares": N_("Share servers with others"),
    "shutdown": N_("Stop this hub"),
}
"""By the scope's name; others are shown by name alone."""


def scope_said(texts: Texts, scope: str) -> str:
    """Say what a scope allows; empty for one that only specialists meet."""
    sentence = SCOPES.get(scope.partition("!")[0])
    return texts.gettext(sentence) if sentence else ""

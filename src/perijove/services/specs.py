"""What a spawner is given to start: command, environment and token of a launch."""

import hmac
import json
from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, delete, insert

from perijove.db.prepared import Statement
from perijove.db.tables import tokens
from perijove.domain.launch import Launch, Resources
from perijove.kit.ids import hash_secret
from perijove.services.environments import place_of
from perijove.services.hub import Hub, client_id_of, quote_name, server_prefix
from perijove.services.oauth import drop_client, register_server_client
from perijove.services.roles import server_token_scopes
from perijove.services.volumes import is_measured_by_servers, names_of
from perijove.spawners.contract import LaunchSpec, VolumeSpec

_ADD_TOKEN = Statement(insert(tokens))
_DELETE_TOKEN = Statement(delete(tokens).where(tokens.c.launch_id == bindparam("the_launch")))


def spec_of(hub: Hub, launch: Launch) -> LaunchSpec:
    """Return all a spawner needs for `launch`; the same in every replica, at any time."""
    placed = hub.spawners[launch.spawner]
    return LaunchSpec(
        launch_id=launch.id,
        name=launch.name,
        installation=hub.installation,
        user_name=launch.user_name,
        server_name=launch.server_name,
        command=placed.settings.command,
        environment=_environment(hub, launch),
        prefix=server_prefix(hub.base_path, launch.user_name, launch.server_name),
        resources=resources_of(launch),
        options=launch.spec.get("options", {}),
        image=launch.spec.get("image", ""),
        volumes=[VolumeSpec(**volume) for volume in launch.spec.get("volumes", ())],
        platform=launch.spec.get("platform", {}),
        code=registration_code(hub, launch),
        labels={"user": launch.user_name, "server": launch.server_name},
    )


def resources_of(launch: Launch) -> Resources:
    """Return what the launch was admitted with."""
    return Resources(**launch.spec.get("resources", {}))


def server_token(hub: Hub, launch: Launch) -> str:
    """Return the launch's API token; derived, never stored (design decision 15)."""
    return hub.keyring.server_token(launch.id, launch.generation)


def registration_code(hub: Hub, launch: Launch) -> str:
    """
    Return what the launch's wrapper proves itself with, from its submission to its end.

    Derived like the token, and good for nothing but registering this launch.
    """
    return hub.keyring.derive("registration", launch.id).hex()


def is_registration_code(hub: Hub, launch_id: str, code: str) -> bool:
    """Tell in constant time whether `code` is a launch's, also one made with an older key."""
    right = False
    for key_id in hub.keyring.keys:
        made = hub.keyring.derive("registration", launch_id, key_id=key_id).hex()
        right |= hmac.compare_digest(made.encode(), code.encode())
    return right


def issue_server_token(hub: Hub, connection: Connection, launch: Launch) -> None:
    """
    Make the launch's token and OAuth client known, in the unit that hands it to the spawner.

    The client of a server is the same for every launch of it, so its secret changes here:
    never before the previous launch has ended.
    """
    secret_hash = hash_secret(server_token(hub, launch))
    register_server_client(
        connection,
        launch_id=launch.id,
        user_name=launch.user_name,
        server_name=launch.server_name,
        secret_hash=secret_hash,
        base_path=hub.base_path,
    )
    prefix = server_prefix(hub.base_path, launch.user_name, launch.server_name)
    _ADD_TOKEN.run(
        connection,
        {
            "hash": secret_hash,
            "scheme": "derived",
            "user_id": launch.user_id,
            "scopes": server_token_scopes(connection),
            "note": f"Server at {prefix}",
            "created_at": hub.clock.now(),
            "launch_id": launch.id,
            "source": "builtin",
        },
    )


def revoke_server_token(connection: Connection, launch: Launch) -> None:
    """Take back the launch's token, its OAuth client, and every token issued through it."""
    drop_client(connection, launch.id)
    _DELETE_TOKEN.run(connection, {"the_launch": launch.id})


def _environment(hub: Hub, launch: Launch) -> Mapping[str, str]:
    """Return the variables of wire §1.2; the profile's own come last."""
    user, server = quote_name(launch.user_name), launch.server_name
    prefix = server_prefix(hub.base_path, launch.user_name, server)
    access = json.dumps(
        [
            f"access:servers!server={launch.user_name}/{server}",
            f"access:servers!user={launch.user_name}",
        ]
    )
    token = server_token(hub, launch)
    public = hub.settings.url.removesuffix(hub.base_path)
    api_url = hub.spawners[launch.spawner].settings.api_url or hub.api_url
    environment = {
        "JUPYTERHUB_API_TOKEN": token,
        "JUPYTERHUB_CLIENT_ID": client_id_of(launch.user_name, server),
        "JUPYTERHUB_HOST": "",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{prefix}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access,
        "JUPYTERHUB_OAUTH_SCOPES": access,
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
        "JUPYTERHUB_USER": launch.user_name,
        "JUPYTERHUB_SERVER_NAME": server,
        "JUPYTERHUB_API_URL": api_url,
        "JUPYTERHUB_ACTIVITY_URL": f"{api_url}/users/{user}/activity",
        "JUPYTERHUB_ACTIVITY_INTERVAL": str(int(hub.lifecycle.reporting_period.total_seconds())),
        "JUPYTERHUB_BASE_URL": hub.base_path,
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
        "JUPYTERHUB_PUBLIC_URL": f"{public}{prefix}" if public else "",
        "JUPYTERHUB_PUBLIC_HUB_URL": f"{public}{hub.hub_prefix}" if public else "",
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
        "JUPYTERHUB_DEFAULT_URL": launch.spec.get("default_url", "/lab"),
    }
    if place := place_of(hub, launch):
        environment["PERIJOVE_ENVIRONMENTS"] = place.folder
    if names_of(launch) and is_measured_by_servers(hub, launch.spawner):
        environment["PERIJOVE_MEASURE"] = "1"
    resources = resources_of(launch)
    if resources.memory_bytes is not None:
        environment["MEM_LIMIT"] = str(resources.memory_bytes)
    if resources.cpu is not None:
        environment["CPU_LIMIT"] = str(resources.cpu)
    return environment | dict(launch.spec.get("environment", {}))

"""Our own resource of what a person may choose: the same that the options page shows."""

from perijove.db.core import Connection, bound
from perijove.services.discovery import FRESH, LEAST_PAUSE, kinds_of, platforms_of, refresh
from perijove.services.profiles import options_schema
from perijove.services.users import get_user
from perijove.web.api.calls import Call, Reply, json_reply


async def options(call: Call) -> Reply:
    """
    ``GET users/:n/options``: a JSON Schema per profile, what was chosen last, what there is.

    ``?server=`` names the server; ``?refresh=1`` asks the platforms anew.
    """
    hub = call.hub
    user = await hub.database.read(bound(get_user, call.user_name))
    kinds = kinds_of(hub)
    await refresh(hub, user.id, max_age=LEAST_PAUSE if call.query.get("refresh") else FRESH)

    def unit(connection: Connection) -> Reply:
        platforms = platforms_of(connection, kinds, user.id, hub.clock.now())
        form = options_schema(connection, user.id, call.query.get("server", ""), platforms)
        return json_reply(form.as_json())

    return await hub.database.read(unit)

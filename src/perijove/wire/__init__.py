"""Bodies of the interfaces between programs, as msgspec structs.

Versioned, without behaviour, and importing nothing of ours, so that the hub, the
proxy, the client and the agent can share them without sharing anything else.
"""

"""Deny all but an address and a network."""

from e2b import ALL_TRAFFIC, Sandbox
from tell import tell

sandbox = Sandbox.create(
    network={
        "deny_out": [ALL_TRAFFIC],
        "allow_out": ["1.1.1.1", "8.8.8.0/24"],
    },
)
tell(sandbox)
sandbox.kill()

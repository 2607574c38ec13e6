"""Deny all but the names below a domain."""

from e2b import ALL_TRAFFIC, Sandbox
from tell import tell

sandbox = Sandbox.create(
    network={
        "allow_out": ["*.mydomain.com"],
        "deny_out": [ALL_TRAFFIC],
    },
)
tell(sandbox)
sandbox.kill()

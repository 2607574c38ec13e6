"""Deny all but names and an address."""

from e2b import ALL_TRAFFIC, Sandbox
from tell import tell

sandbox = Sandbox.create(
    network={
        "allow_out": ["api.example.com", "*.github.com", "203.0.113.10"],
        "deny_out": [ALL_TRAFFIC],
    },
)
tell(sandbox)
sandbox.kill()

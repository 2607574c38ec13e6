"""Deny all but a name, the list of all traffic given as a function."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create(
    network={
        "allow_out": ["api.example.com"],
        "deny_out": lambda ctx: [ctx.all_traffic],
    },
)
tell(sandbox)
sandbox.kill()

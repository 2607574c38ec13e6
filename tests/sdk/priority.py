"""Allow rules come before deny rules."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create(
    network={
        "deny_out": ["203.0.113.0/24"],
        "allow_out": ["203.0.113.10"],
    },
)
tell(sandbox)
sandbox.kill()

"""Deny one address."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create(network={"deny_out": ["8.8.8.8"]})
tell(sandbox)
sandbox.kill()

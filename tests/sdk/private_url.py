"""A sandbox whose public URLs need its token."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create(network={"allow_public_traffic": False})
tell(sandbox)
sandbox.kill()

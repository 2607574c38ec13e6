"""A sandbox whose services have public URLs, as all have by default."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create()
tell(sandbox)
sandbox.kill()

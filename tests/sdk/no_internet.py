"""A sandbox without internet access."""

from e2b import Sandbox
from tell import tell

sandbox = Sandbox.create(allow_internet_access=False)
tell(sandbox)
sandbox.kill()

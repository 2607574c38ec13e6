"""A sandbox is created, found again, connected to, prolonged and killed."""

from datetime import datetime, timezone

from e2b import Sandbox
from tell import complaint, tell


def listed():
    return [info.sandbox_id for info in Sandbox.list().next_items()]


sandbox = Sandbox.create(metadata={"purpose": "a test"})
again = Sandbox.connect(sandbox.sandbox_id)
sandbox.set_timeout(600)
info = sandbox.get_info()
tell(
    sandbox,
    listed=sandbox.sandbox_id in listed(),
    connected=again.sandbox_id,
    connectedHost=again.get_host(8080),
    connectedToken=again.traffic_access_token,
    state=str(info.state.value),
    metadata=info.metadata,
    template=info.template_id,
    seconds=(info.end_at - datetime.now(timezone.utc)).total_seconds(),
)
tell(sandbox, running=sandbox.is_running())
killed = sandbox.kill()
tell(
    sandbox,
    killed=killed,
    killedAgain=sandbox.kill(),
    running=sandbox.is_running(),
    listed=sandbox.sandbox_id in listed(),
    connecting=complaint(lambda: Sandbox.connect(sandbox.sandbox_id)),
    updating=complaint(lambda: sandbox.update_network({})),
    asking=complaint(lambda: sandbox.get_info()),
)

// A sandbox is created, found again, connected to, prolonged and killed.

import { Sandbox } from 'e2b'
import { complaint, tell } from './tell.mjs'

async function listed(sandbox) {
  const items = await Sandbox.list().nextItems()
  return items.some((info) => info.sandboxId === sandbox.sandboxId)
}

const sandbox = await Sandbox.create({ metadata: { purpose: 'a test' } })
const again = await Sandbox.connect(sandbox.sandboxId)
await sandbox.setTimeout(600_000)
const info = await sandbox.getInfo()
await tell(sandbox, {
  listed: await listed(sandbox),
  connected: again.sandboxId,
  connectedHost: again.getHost(8080),
  connectedToken: again.trafficAccessToken ?? null,
  state: info.state,
  metadata: info.metadata,
  template: info.templateId,
  seconds: (info.endAt - Date.now()) / 1000,
})
await tell(sandbox, { running: await sandbox.isRunning() })
const killed = await sandbox.kill()
await tell(sandbox, {
  killed,
  killedAgain: await sandbox.kill(),
  running: await sandbox.isRunning(),
  listed: await listed(sandbox),
  connecting: await complaint(() => Sandbox.connect(sandbox.sandboxId)),
  updating: await complaint(() => sandbox.updateNetwork({})),
  asking: await complaint(() => sandbox.getInfo()),
})

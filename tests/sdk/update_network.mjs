// The network of a running sandbox changes. Every update replaces all of the one before.

import { ALL_TRAFFIC, Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create()
await tell(sandbox)

await sandbox.updateNetwork({ allowOut: ['1.1.1.1'], denyOut: [ALL_TRAFFIC] })
await tell(sandbox)

await sandbox.updateNetwork({ denyOut: ['1.1.1.1'] })
await tell(sandbox)

await sandbox.updateNetwork({ allowInternetAccess: false })
await tell(sandbox)

await Sandbox.updateNetwork(sandbox.sandboxId, {})
await tell(sandbox)
await sandbox.kill()

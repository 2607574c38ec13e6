// Configurations that the agent refuses, and what the one in force then is.

import { ALL_TRAFFIC, Sandbox } from 'e2b'
import { complaint, tell } from './tell.mjs'

const sandbox = await Sandbox.create({ network: { denyOut: ['8.8.8.8'] } })
await tell(sandbox, {
  deniedName: await complaint(() => Sandbox.create({ network: { denyOut: ['example.com'] } })),
  nameAlone: await complaint(() => Sandbox.create({ network: { allowOut: ['api.example.com'] } })),
  noAddress: await complaint(() =>
    sandbox.updateNetwork({ allowOut: ['1.2.3'], denyOut: [ALL_TRAFFIC] })
  ),
  wrongKey: await complaint(() => Sandbox.create({ apiKey: 'e2b_0000' })),
})
await sandbox.kill()

// A sandbox whose services see another Host.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({ network: { maskRequestHost: 'localhost:${PORT}' } })
await tell(sandbox)
await sandbox.kill()

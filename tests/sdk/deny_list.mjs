// Deny one address.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({ network: { denyOut: ['8.8.8.8'] } })
await tell(sandbox)
await sandbox.kill()

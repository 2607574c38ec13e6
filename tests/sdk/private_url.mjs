// A sandbox whose public URLs need its token.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({ network: { allowPublicTraffic: false } })
await tell(sandbox)
await sandbox.kill()

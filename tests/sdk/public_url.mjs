// A sandbox whose services have public URLs, as all have by default.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create()
await tell(sandbox)
await sandbox.kill()

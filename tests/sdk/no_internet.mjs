// A sandbox without internet access.

import { Sandbox } from 'e2b'
import { tell } from './tell.mjs'

const sandbox = await Sandbox.create({ allowInternetAccess: false })
await tell(sandbox)
await sandbox.kill()

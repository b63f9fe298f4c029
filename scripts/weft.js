#!/usr/bin/env node
// `npx weft`: the program under the Node that the set-up brought, whichever Node was asked.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fail, node24, root } from './setup.js'

const main = join(root, 'src/cli/main.ts')
if (!existsSync(node24)) fail('Node 24 is not here yet: run npm start first, it sets everything up')
if (Number.parseInt(process.versions.node, 10) >= 24) await import(main)
else process.exitCode = spawnSync(node24, [main, ...process.argv.slice(2)], { stdio: 'inherit' }).status ?? 1

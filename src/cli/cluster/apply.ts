import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { compile } from '#datapath/compile.ts'
import { ensureCgroup, findCgroups } from '#kernel/cgroup.ts'
import { mountBpf, mountShared } from '#kernel/mount.ts'
import { formatContainerdConfig } from '#kubelet/runtime/containerd-config.ts'
import { buildDemoArchive, pauseImage } from '../images/demo.ts'
import {
  agentSpec,
  cniBinDir,
  cniConfDir,
  containerdConfigPath,
  containerdSpec,
  containerdStateDir,
  installDir,
  serverSpec,
} from './commands.ts'
import { externalUrl, portFile } from './endpoint.ts'
import { connectNode, createFabric } from './fabric.ts'
import type { ClusterLayout, NodeLayout } from './layout.ts'
import { connectedMarker, importedMarker, pidFile } from './observe.ts'
import { type Action, agentProcess, containerdProcess, serverProcess } from './plan.ts'
import { portTaken } from './prerequisites.ts'
import { findProcess, logTail, startProcess } from './processes.ts'
import { waitForNodes, waitForServer, waitForSocket } from './ready.ts'

const run = promisify(execFile)
/** What can be made again: programs, images, compiled TypeScript. */
const cacheDir = '/var/cache/weft'

export interface ApplyOptions {
  /** Asked for by the user; undefined takes the usual one or the next free. */
  readonly apiPort: number | undefined
  /** How long each part may take to come up. */
  readonly readyWithinMs: number
}

/** Carries the plan out and says what there is now. Throws with the log of the part that did not come up. */
export async function applyUp(
  layout: ClusterLayout,
  actions: readonly Action[],
  options: ApplyOptions,
): Promise<string> {
  const started: string[] = []
  /** Work that later steps need not wait for: images are imported while the server starts. */
  const background: Promise<void>[] = []
  if (actions.some((action) => action.do === 'start-agent')) inBackground(background, compilePrograms())
  const begin = performance.now()
  for (const action of actions) {
    const done = await applyAction(layout, action, options, background)
    if (done !== undefined) started.push(done)
  }
  await Promise.all(background)
  const seconds = ((performance.now() - begin) / 1000).toFixed(1)
  const what = started.length === 0 ? 'nothing to do' : `started ${started.join(', ')}`
  return `cluster ${layout.name}: ${what}; ${layout.nodes.length} nodes ${layout.agent === 'none' ? 'registered' : 'Ready'} in ${seconds} s; API server at ${externalUrl(layout)}`
}

async function applyAction(
  layout: ClusterLayout,
  action: Action,
  options: ApplyOptions,
  background: Promise<void>[],
): Promise<string | undefined> {
  switch (action.do) {
    case 'create-directories':
      for (const dir of [layout.stateDir, layout.runDir, ...layout.nodes.flatMap((n) => [n.dataDir, n.runDir])])
        mkdirSync(dir, { recursive: true, mode: 0o755 })
      return undefined
    case 'create-cgroups': {
      const tree = findCgroups()
      ensureCgroup(tree, layout.server.cgroup)
      for (const node of layout.nodes)
        for (const leaf of ['system', 'pods']) ensureCgroup(tree, `${node.cgroup}/${leaf}`)
      return undefined
    }
    case 'share-mounts':
      mountShared(action.path)
      return undefined
    case 'create-fabric':
      await createFabric(action.fabric, layout.podCidrs)
      return mark(layout, action.fabric.netns)
    case 'create-node-namespace':
      await connectNode(action.fabric, action.node)
      return mark(layout, action.node.netns)
    case 'mount-bpffs':
      mkdirSync(action.path, { recursive: true, mode: 0o700 })
      mountBpf(action.path)
      return undefined
    case 'start-server':
      await startServer(layout, options)
      return serverProcess
    case 'start-containerd':
      writeContainerdConfig(action.node)
      startProcess(containerdSpec(layout, action.node))
      return containerdProcess(action.node)
    case 'import-images':
      inBackground(background, importImages(layout, action.node, options.readyWithinMs))
      return undefined
    case 'wait-server':
      await waitForServer(layout, () => requireAlive(layout, serverProcess), options.readyWithinMs)
      return undefined
    case 'start-agent':
      await Promise.all(background.splice(0))
      startProcess(agentSpec(layout, action.node))
      return agentProcess(action.node)
    case 'wait-nodes':
      await waitForNodes(
        layout,
        () => {
          for (const node of layout.nodes)
            for (const name of [containerdProcess(node), agentProcess(node)]) requireAlive(layout, name)
        },
        options.readyWithinMs,
      )
      return undefined
    default:
      return action satisfies never
  }
}

/** It is awaited before the agents start; a failure until then must wait, too, and not end the process by itself. */
function inBackground(background: Promise<void>[], work: Promise<void>): void {
  work.catch(() => {})
  background.push(work)
}

/** The first agent would compile them otherwise, and its node be Ready a second later. */
async function compilePrograms(): Promise<void> {
  await compile({ cacheDir: join(cacheDir, 'bpf') })
}

function mark(layout: ClusterLayout, netns: string): string {
  const file = connectedMarker(layout, netns)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, '')
  return netns
}

function requireAlive(layout: ClusterLayout, name: string): void {
  if (findProcess(name, pidFile(layout, name)) !== undefined) return
  const log = join(layout.runDir, 'logs', `${name.replace('/', '.')}.log`)
  throw new Error(`${name} ended while starting; its last words (${log}):\n${logTail(log)}`)
}

async function startServer(layout: ClusterLayout, { apiPort }: ApplyOptions): Promise<void> {
  const known = existsSync(portFile(layout)) ? Number(readFileSync(portFile(layout), 'utf8')) : undefined
  const listener = await listenOnLoopback(apiPort ?? known, layout.server.port)
  try {
    const { port } = listener.address() as { port: number }
    writeFileSync(portFile(layout), `${port}\n`)
    startProcess(serverSpec(layout, descriptorOf(listener), port))
  } finally {
    // The server has its own copy of the descriptor; closing ours does not end the listening.
    await new Promise<void>((resolve) => listener.close(() => resolve()))
  }
}

/** A socket on the wanted port, or on the usual one, or on any. A port that was asked for and is taken is an error. */
export async function listenOnLoopback(wanted: number | undefined, usual: number): Promise<Server> {
  const attempts = wanted === undefined ? [usual, 0] : [wanted]
  for (const port of attempts) {
    const server = createServer()
    try {
      return await new Promise<Server>((resolve, reject) => {
        server.once('error', reject)
        server.listen(port, '127.0.0.1', () => resolve(server))
      })
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error
    }
  }
  throw new Error(portTaken(wanted ?? usual))
}

/** Node has no public way to a listening socket's descriptor; child_process takes the number. */
function descriptorOf(server: Server): number {
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle
  return fd
}

function writeContainerdConfig(node: NodeLayout): void {
  for (const dir of [cniBinDir(node), cniConfDir(node)]) mkdirSync(dir, { recursive: true })
  const config = formatContainerdConfig({
    rootDir: join(node.dataDir, 'containerd'),
    stateDir: containerdStateDir(node),
    socket: node.criSocket,
    cniBinDir: cniBinDir(node),
    cniConfDir: cniConfDir(node),
    sandboxImage: pauseImage,
  })
  writeFileSync(containerdConfigPath(node), config, { mode: 0o600 })
}

/** ctr is the one way into containerd's store that is not CRI: a node without a registry needs it. */
async function importImages(layout: ClusterLayout, node: NodeLayout, withinMs: number): Promise<void> {
  const archive = buildDemoArchive(installDir, cacheDir)
  const marker = importedMarker(node)
  if (existsSync(marker) && readFileSync(marker, 'utf8') === archive) return
  await waitForSocket(node.criSocket, () => requireAlive(layout, containerdProcess(node)), withinMs)
  try {
    await run('ctr', ['--address', node.criSocket, '--namespace', 'k8s.io', 'images', 'import', archive])
  } catch (error) {
    throw new Error(`Cannot import the images into ${node.name}`, { cause: error })
  }
  writeFileSync(marker, archive)
}

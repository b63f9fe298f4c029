import type { Node, NodeStatus } from '#api/gen/core-v1.ts'
import { nodes } from '#api/gen/resources.ts'
import { isStatus } from '#api/meta/status.ts'
import { Backoff } from '#base/async/backoff.ts'
import { delay } from '#base/async/delay.ts'
import type { Clock } from '#base/clock.ts'
import type { Log } from '#base/log/log.ts'
import type { Client, Draft } from '#client/client.ts'
import { keepLease } from '#client/lease.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { type Machine, readPressure } from './machine.ts'
import { nodeStatus } from './status.ts'

export interface NodeOptions {
  readonly client: Client
  readonly runtime: Runtime
  readonly name: string
  /** Of the node itself, the first is its main one. */
  readonly addresses: readonly string[]
  readonly port: number
  readonly labels: Readonly<Record<string, string>>
  readonly podsMax: number
  readonly machine: Machine
  /** Where pods and images are kept: its disk is watched. */
  readonly dataDir: string
  readonly clock: Clock
  readonly log: Log
}

/** The API level we follow. */
export const kubeletVersion = 'v1.36.0+weft'

const leaseNamespace = 'kube-node-lease'
const leaseSeconds = 40
const leaseEveryMs = 10_000
/** How often we look at ourselves; the status is written when something has changed, or after `reportMs`. */
const lookMs = 10_000
/** A node that is not Ready yet is looked at more often: pods wait for it. */
const unreadyLookMs = 500
const reportMs = 300_000

/** This node in the API: registered, its status kept true, its lease renewed. */
export class NodeReporter {
  readonly #options: NodeOptions
  #node: Node | undefined
  #written = ''
  #writtenAt = 0
  readonly #reported = Promise.withResolvers<void>()

  constructor(options: NodeOptions) {
    this.#options = options
  }

  /** As last seen. */
  get node(): Node | undefined {
    return this.#node
  }

  /** Resolves when the API server has the node with its addresses: what it signs for them depends on that. */
  get reported(): Promise<void> {
    return this.#reported.promise
  }

  /** Registers the node and keeps its status until `signal` aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options
    const backoff = new Backoff({ firstMs: 200, maxMs: 10_000, jitter: 0.2 })
    while (!signal.aborted) {
      let pauseMs: number
      try {
        const ready = await this.#report(signal)
        backoff.reset()
        pauseMs = ready ? lookMs : unreadyLookMs
      } catch (error) {
        if (signal.aborted) return
        this.#node = undefined
        pauseMs = backoff.next()
        log.warn({ err: error }, 'cannot report the node')
      }
      await delay(pauseMs, signal, clock).catch(() => {})
    }
  }

  /** Renews the node's lease until `signal` aborts. */
  async keepLease(signal: AbortSignal): Promise<void> {
    const { client, name, clock, log } = this.#options
    const owner = () => this.#node && { apiVersion: 'v1', kind: 'Node', name, uid: this.#node.metadata.uid }
    await keepLease(
      {
        client,
        key: { namespace: leaseNamespace, name },
        holder: name,
        durationSeconds: leaseSeconds,
        everyMs: leaseEveryMs,
        owner,
        clock,
        log,
      },
      signal,
    )
  }

  async #report(signal: AbortSignal): Promise<boolean> {
    const { client, name, clock } = this.#options
    const node = this.#node ?? (await this.#register(signal))
    this.#node = node
    const status = await this.#look(node.status, signal)
    const ready = status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
    const words = fingerprint(status)
    const now = clock.now()
    if (words !== this.#written || now - this.#writtenAt >= reportMs) {
      // Only what is ours: addresses, taints and conditions of others belong to them.
      // Addresses merge by `type`, and a node of two families has two InternalIPs: merged, the second would take the
      // first one's place. Replacing the list is what upstream's kubelet does, too.
      const patch = { status: { ...status, addresses: [{ $patch: 'replace' }, ...(status.addresses ?? [])] } }
      this.#node = await client.patch(nodes, { name }, 'strategic', patch, { subresource: 'status', signal })
      this.#written = words
      this.#writtenAt = now
      this.#reported.resolve()
    }
    return ready
  }

  async #look(old: NodeStatus | undefined, signal: AbortSignal): Promise<NodeStatus> {
    const { runtime, name, addresses, port, podsMax, machine, dataDir, clock } = this.#options
    const asError = (error: unknown) => (error instanceof Error ? error : new Error(String(error)))
    const [conditions, images, version] = await Promise.all([
      runtime.status(signal).catch(asError),
      runtime.listImages(signal).catch(() => []),
      runtime.version(signal).catch(() => ({ name: 'unknown', version: '' })),
    ])
    signal.throwIfAborted()
    return nodeStatus(
      {
        name,
        addresses,
        port,
        podsMax,
        machine,
        pressure: readPressure(dataDir),
        runtimeVersion: `${version.name}://${version.version}`,
        kubeletVersion,
        runtime: conditions,
        images,
        now: clock.now(),
      },
      old,
    )
  }

  async #register(signal: AbortSignal): Promise<Node> {
    const { client, name, labels } = this.#options
    const wanted = {
      'beta.kubernetes.io/arch': this.#options.machine.architecture,
      'beta.kubernetes.io/os': 'linux',
      'kubernetes.io/arch': this.#options.machine.architecture,
      'kubernetes.io/hostname': name,
      'kubernetes.io/os': 'linux',
      ...labels,
    }
    let found: Node
    try {
      found = await client.get(nodes, { name }, { signal })
    } catch (error) {
      if (!isStatus(error, 'NotFound')) throw error
      const draft: Draft<Node> = { metadata: { name, labels: wanted }, spec: {} }
      try {
        return await client.create(nodes, draft, { signal })
      } catch (raced) {
        if (!isStatus(raced, 'AlreadyExists')) throw raced
        found = await client.get(nodes, { name }, { signal })
      }
    }
    const missing = Object.entries(wanted).some(([key, value]) => found.metadata.labels?.[key] !== value)
    return missing ? await client.patch(nodes, { name }, 'merge', { metadata: { labels: wanted } }, { signal }) : found
  }
}

/** What of a status is worth a write by itself; the heart beats in the lease. */
function fingerprint(status: NodeStatus): string {
  const conditions = status.conditions?.map(({ type, status: s, reason, message }) => [type, s, reason, message])
  const { capacity, addresses, nodeInfo, images, daemonEndpoints } = status
  return JSON.stringify({ conditions, capacity, addresses, nodeInfo, images, daemonEndpoints })
}

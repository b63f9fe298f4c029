import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { attachedTo, Link, Program } from '#kernel/bpf/program.ts'
import { hasCode } from '#kernel/errno.ts'
import { Fd } from '#kernel/fd.ts'
import type { Namespace } from '#kernel/netns.ts'
import { type Place, type ProgramSpec, programs } from './object.ts'

/**
 * Links, each pinned under a name that says where it is. The pin is what keeps a program attached when the agent is gone;
 * an agent that comes back finds it there and exchanges the program behind it, without a packet in between.
 */
export class Attachments {
  readonly #dir: string
  #programs: ReadonlyMap<string, Program>
  readonly #namespace: Namespace | undefined

  constructor(pinDir: string, loaded: ReadonlyMap<string, Program>, namespace?: Namespace) {
    this.#dir = join(pinDir, 'links')
    this.#programs = loaded
    this.#namespace = namespace
    mkdirSync(this.#dir, { recursive: true, mode: 0o700 })
  }

  /** From now on these are ours; links that are there have the ones of before until they are asked for again. */
  exchange(loaded: ReadonlyMap<string, Program>): void {
    this.#programs = loaded
  }

  /** Programs of `place` on the device. Says whether anything had to be done. */
  async attachDevice(place: DevicePlace, id: string, ifindex: number): Promise<boolean> {
    // At once: each waits some 10 ms for the kernel, in a thread of the pool.
    const changes = await Promise.all(
      programs.filter((p) => p.place === place).map((spec) => this.#attach(spec, id, ifindex)),
    )
    return changes.includes(true)
  }

  /** The first look at what the device receives: by its driver, by the kernel in its stead, or none. Says whether one was attached anew. */
  async attachXdp(mode: 'off' | 'native' | 'generic', ifindex: number): Promise<boolean> {
    const other = mode === 'native' ? 'generic' : 'native'
    let changed = false
    for (const spec of programs.filter((p) => p.place === 'xdp')) {
      // One device has one mode: the other is left before.
      for (const left of mode === 'off' ? (['native', 'generic'] as const) : [other]) this.#remove(pinName(spec, left))
      if (mode === 'off') continue
      const hook = mode === 'native' ? 'xdpNative' : 'xdpGeneric'
      if (await this.#attach({ ...spec, hook }, mode, ifindex)) changed = true
    }
    return changed
  }

  async #attach(spec: ProgramSpec, id: string, ifindex: number): Promise<boolean> {
    const program = this.#program(spec)
    const name = pinName(spec, id)
    const found = this.#keep(name, program, { ifindex })
    if (found === 'missing') {
      using link = await Link.attachDevice(program, spec.hook, ifindex, this.#namespace)
      link.pin(join(this.#dir, name))
    }
    return found !== 'same'
  }

  /** Every link that is there for `place` gets the present program; those of devices that are gone are left to `prune`. */
  updateDevices(place: DevicePlace): boolean {
    let changed = false
    for (const spec of programs.filter((p) => p.place === place)) {
      const program = this.#program(spec)
      for (const name of readdirSync(this.#dir)) {
        if (!name.startsWith(`${place}-`) || !name.endsWith(`-${spec.name}`)) continue
        using link = Link.openPin(join(this.#dir, name))
        if (link === undefined || link.info.ifindex === 0 || link.info.programId === program.info.id) continue
        try {
          link.update(program)
          changed = true
        } catch (error) {
          if (!hasCode(error, 'ENOLINK')) throw error
        }
      }
    }
    return changed
  }

  /**
   * A program that somebody put before ours decides first, and what it passes never meets ours: then ours becomes the first
   * again, without a packet in between. `another` gives the program once more, for one hook takes none twice; it is disposed.
   */
  async keepFirst(another: (spec: ProgramSpec) => Program): Promise<Displaced[]> {
    const found: Displaced[] = []
    for (const spec of programs.filter(({ hook }) => hook === 'tcxIngress' || hook === 'tcxEgress')) {
      for (const name of readdirSync(this.#dir)) {
        if (!name.startsWith(`${spec.place}-`) || !name.endsWith(`-${spec.name}`)) continue
        using link = Link.openPin(join(this.#dir, name))
        const others = link === undefined ? [] : this.#before(spec, link)
        if (link === undefined || others.length === 0) continue
        const { ifindex } = link.info
        found.push(...others.map((id) => ({ program: nameOf(id), id, before: spec.name, ifindex })))
        await this.#becomeFirst(spec, name, link, another)
      }
    }
    return found
  }

  /** Numbers of the programs that run before ours. */
  #before(spec: ProgramSpec, link: Link): number[] {
    const { id, ifindex } = link.info
    if (ifindex === 0) return []
    try {
      const all = attachedTo(spec.hook, ifindex, this.#namespace)
      const place = all.findIndex(({ linkId }) => linkId === id)
      return all.slice(0, Math.max(place, 0)).map(({ programId }) => programId)
    } catch (error) {
      // The device went in this moment.
      if (hasCode(error, 'ENODEV')) return []
      throw error
    }
  }

  async #becomeFirst(
    spec: ProgramSpec,
    name: string,
    link: Link,
    another: (spec: ProgramSpec) => Program,
  ): Promise<void> {
    const path = join(this.#dir, name)
    using program = another(spec)
    using next = await Link.attachDevice(program, spec.hook, link.info.ifindex, this.#namespace)
    // Taken away meanwhile, as with its pod.
    if (!existsSync(path)) return next.detach()
    next.pin(`${path}-next`)
    // In place of the other: who comes back after a crash finds one of the two.
    renameSync(`${path}-next`, path)
    link.detach()
    next.update(this.#program(spec))
  }

  /** Socket hooks, for every process in the cgroup and below it. */
  attachCgroup(cgroupPath: string): boolean {
    // Node's openSync is synchronous: it leaves no thread anywhere.
    const directory = openSync(cgroupPath, 'r')
    const cgroupId = fstatSync(directory, { bigint: true }).ino
    let changed = false
    try {
      for (const spec of programs.filter((p) => p.place === 'cgroup')) {
        const program = this.#program(spec)
        // The descriptor is lent, not given.
        const cgroup = new Fd(directory)
        const name = pinName(spec, 'node')
        const found = this.#keep(name, program, { cgroupId })
        if (found === 'missing') {
          using link = Link.attachCgroup(program, spec.hook, cgroup, cgroupPath)
          link.pin(join(this.#dir, name))
        }
        changed ||= found !== 'same'
        cgroup.release()
      }
    } finally {
      closeSync(directory)
    }
    return changed
  }

  /** The programs of a device that is gone, or that shall go on without them. */
  detachDevice(place: DevicePlace, id: string): void {
    for (const spec of programs.filter((p) => p.place === place)) this.#remove(pinName(spec, id))
  }

  /** Takes away pins of endpoints that nobody knows, and of programs that there are no more. Returns their names. */
  prune(endpointIds: ReadonlySet<string>): string[] {
    const wanted = new Set(
      programs.flatMap((spec) =>
        (spec.place === 'endpoint' ? [...endpointIds] : spec.place === 'xdp' ? ['native', 'generic'] : ['node']).map(
          (id) => pinName(spec, id),
        ),
      ),
    )
    const stale = existsSync(this.#dir) ? readdirSync(this.#dir).filter((name) => !wanted.has(name)) : []
    for (const name of stale) this.#remove(name)
    return stale
  }

  #program(spec: ProgramSpec): Program {
    const program = this.#programs.get(spec.name)
    if (program === undefined) throw new Error(`Cannot attach program ${spec.name}: it is not loaded`)
    return program
  }

  #remove(name: string): void {
    const path = join(this.#dir, name)
    using link = Link.openPin(path)
    link?.detach()
    rmSync(path, { force: true })
  }

  /** Has the link under that name run `program`, where it is still attached to `target`; clears the place otherwise. */
  #keep(name: string, program: Program, target: Target): 'same' | 'updated' | 'missing' {
    using known = Link.openPin(join(this.#dir, name))
    if (known === undefined) return 'missing'
    const info = known.info
    // A link whose device or cgroup went is nowhere any more; there may since be another of that name.
    if ('ifindex' in target ? info.ifindex === target.ifindex : info.cgroupId === target.cgroupId) {
      if (info.programId === program.info.id) return 'same'
      try {
        known.update(program)
        return 'updated'
      } catch (error) {
        // The device (or cgroup) went in this moment: attach anew.
        if (!hasCode(error, 'ENOLINK')) throw error
      }
    }
    this.#remove(name)
    return 'missing'
  }
}

/** Somebody's program that was found running before one of ours. */
export interface Displaced {
  /** As the kernel knows it, 15 characters at most; empty where it has gone. */
  readonly program: string
  readonly id: number
  /** The one of ours. */
  readonly before: string
  readonly ifindex: number
}

function nameOf(programId: number): string {
  using program = Program.openId(programId)
  return program?.name ?? ''
}

/** Places that are devices. */
type DevicePlace = Exclude<Place, 'cgroup'>

/** What a link is attached to: a device by its index, a cgroup by its directory's inode. */
type Target = { readonly ifindex: number } | { readonly cgroupId: bigint }

/** bpffs takes no dots in names. */
const pinName = (spec: ProgramSpec, id: string): string =>
  `${spec.place}-${id.replaceAll(/[^a-zA-Z0-9_-]/g, '_')}-${spec.name}`

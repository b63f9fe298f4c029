import type { Clock } from '#base/clock.ts'
import {
  type ContainerConfig,
  type ContainerRecord,
  type ExecResult,
  type ImageRecord,
  type Runtime,
  RuntimeError,
  type SandboxConfig,
  type SandboxStatus,
} from './runtime.ts'

interface FakeContainer {
  record: ContainerRecord
  readonly config: ContainerConfig
  /** Resolves when it has ended. */
  readonly ended: PromiseWithResolvers<void>
}

/** How a fake container takes its end. */
export interface FakeBehaviour {
  /** Exit code of a container that is asked to stop; undefined: it waits for the kill and gives 137. */
  readonly stopCode?: number
}

/**
 * A runtime in memory: sandboxes and containers are entries, programs are what the test says they do
 * (`exit`, `exec`). It keeps CRI's rules, which `conformance.ts` proves against the real one.
 */
export class FakeRuntime implements Runtime {
  readonly #clock: Clock
  readonly #sandboxes = new Map<string, SandboxStatus>()
  readonly #containers = new Map<string, FakeContainer>()
  readonly #images = new Map<string, ImageRecord>()
  readonly #failures = new Map<string, { error: RuntimeError; times: number }>()
  #serial = 0
  /** Every call that changed something, in order: `runSandbox web`. */
  readonly calls: string[] = []
  behaviour: FakeBehaviour = { stopCode: 0 }
  exec: (id: string, command: readonly string[]) => ExecResult = () => ({
    exitCode: 0,
    stdout: new Uint8Array(),
    stderr: new Uint8Array(),
  })

  constructor(clock: Clock, images: readonly string[] = []) {
    this.#clock = clock
    for (const image of images)
      this.#images.set(image, { id: `sha256:${image}`, tags: [image], digests: [], sizeBytes: 1, uid: 0, username: '' })
  }

  /** Ends a container from the inside. */
  exit(id: string, exitCode: number, reason = exitCode === 0 ? 'Completed' : 'Error'): void {
    const container = this.#containers.get(id)
    if (container === undefined) throw new Error(`Cannot end container ${id}: there is none`)
    container.record = { ...container.record, state: 'exited', exitCode, reason, finishedAt: this.#clock.now() }
    container.ended.resolve()
  }

  /** The next `times` calls of the method fail. */
  fail(method: keyof Runtime, detail: string, times = 1): void {
    this.#failures.set(method, { error: new RuntimeError(`call ${method}`, 'other', detail), times })
  }

  /** As a crash of the runtime's host would leave it. */
  breakSandbox(id: string): void {
    const sandbox = this.#sandboxes.get(id)
    if (sandbox !== undefined) this.#sandboxes.set(id, { ...sandbox, ready: false })
  }

  configOf(id: string): ContainerConfig | undefined {
    return this.#containers.get(id)?.config
  }

  #check(method: keyof Runtime, what?: string): void {
    if (what !== undefined) this.calls.push(`${method} ${what}`)
    const failure = this.#failures.get(method)
    if (failure === undefined) return
    if (--failure.times <= 0) this.#failures.delete(method)
    throw failure.error
  }

  async version() {
    return { name: 'fake', version: '1' }
  }

  async status() {
    this.#check('status')
    return ['RuntimeReady', 'NetworkReady'].map((type) => ({ type, status: true, reason: '', message: '' }))
  }

  async runSandbox(config: SandboxConfig): Promise<string> {
    const { name, namespace, uid, attempt } = config.metadata
    const id = `sandbox-${++this.#serial}`
    const taken = [...this.#sandboxes.values()].some((s) => s.podUid === uid && s.attempt === attempt)
    if (taken)
      throw new RuntimeError('call RunPodSandbox', 'other', `name "${name}_${namespace}_${uid}_${attempt}" is reserved`)
    const own = config.linux.securityContext.namespaceOptions.network === 'POD'
    const status = {
      id,
      name,
      namespace,
      podUid: uid,
      attempt,
      ready: true,
      createdAt: this.#clock.now(),
      annotations: config.annotations,
    }
    try {
      this.#check('runSandbox', name)
    } catch (error) {
      // What containerd leaves behind when the network could not be set up.
      this.#sandboxes.set(id, { ...status, ready: false, ips: [] })
      throw error
    }
    this.#sandboxes.set(id, { ...status, ips: own ? [`10.244.1.${this.#serial}`] : [] })
    return id
  }

  async stopSandbox(id: string): Promise<void> {
    this.#check('stopSandbox', id)
    for (const c of this.#containers.values())
      if (c.record.sandboxId === id && c.record.state === 'running') this.exit(c.record.id, 137)
    this.breakSandbox(id)
  }

  async removeSandbox(id: string): Promise<void> {
    await this.stopSandbox(id)
    this.#check('removeSandbox', id)
    for (const c of [...this.#containers.values()]) if (c.record.sandboxId === id) this.#containers.delete(c.record.id)
    this.#sandboxes.delete(id)
  }

  async listSandboxes(podUid?: string) {
    return [...this.#sandboxes.values()].filter((s) => podUid === undefined || s.podUid === podUid)
  }

  async sandboxStatus(id: string) {
    return this.#sandboxes.get(id)
  }

  async createContainer(sandboxId: string, config: ContainerConfig, sandbox: SandboxConfig): Promise<string> {
    this.#check('createContainer', config.metadata.name)
    if (this.#sandboxes.get(sandboxId)?.ready !== true)
      throw new RuntimeError('call CreateContainer', 'other', `sandbox container "${sandboxId}" is not running`)
    const image =
      this.#images.get(config.image.image) ?? [...this.#images.values()].find((i) => i.id === config.image.image)
    if (image === undefined)
      throw new RuntimeError('call CreateContainer', 'not-found', `image "${config.image.image}": not found`)
    const { name, attempt } = config.metadata
    const same = (c: FakeContainer) =>
      c.record.podUid === sandbox.metadata.uid && c.record.name === name && c.record.attempt === attempt
    if ([...this.#containers.values()].some(same))
      throw new RuntimeError('call CreateContainer', 'other', `name "${name}_${attempt}" is reserved`)
    const id = `container-${++this.#serial}`
    this.#containers.set(id, {
      config,
      ended: Promise.withResolvers<void>(),
      record: {
        id,
        sandboxId,
        name,
        podUid: sandbox.metadata.uid,
        attempt,
        state: 'created',
        createdAt: this.#clock.now(),
        startedAt: 0,
        finishedAt: 0,
        exitCode: 0,
        reason: '',
        message: '',
        image: config.image.userSpecifiedImage,
        imageRef: image.id,
        logPath: `${sandbox.logDirectory}/${config.logPath}`,
        labels: config.labels,
        annotations: config.annotations,
        mounts: config.mounts,
      },
    })
    return id
  }

  async startContainer(id: string): Promise<void> {
    const container = this.#find(id, 'StartContainer')
    if (container.record.state !== 'created')
      throw new RuntimeError(
        'call StartContainer',
        'other',
        `container is in CONTAINER_${container.record.state.toUpperCase()} state`,
      )
    try {
      this.#check('startContainer', container.record.name)
    } catch (error) {
      this.exit(id, 128, 'StartError')
      throw error
    }
    container.record = { ...container.record, state: 'running', startedAt: this.#clock.now() }
  }

  async stopContainer(id: string, graceSeconds: number): Promise<void> {
    const container = this.#containers.get(id)
    if (container === undefined || container.record.state !== 'running') return
    this.#check('stopContainer', `${container.record.name} ${graceSeconds}`)
    const { stopCode } = this.behaviour
    if (stopCode !== undefined) return this.exit(id, stopCode)
    const cancel = this.#clock.schedule(graceSeconds * 1000, () => {
      if (container.record.state === 'running') this.exit(id, 137)
    })
    await container.ended.promise
    cancel()
  }

  async removeContainer(id: string): Promise<void> {
    if (!this.#containers.has(id)) return
    this.#check('removeContainer', id)
    if (this.#containers.get(id)?.record.state === 'running') this.exit(id, 137)
    this.#containers.delete(id)
  }

  async listContainers(podUid?: string) {
    return [...this.#containers.values()]
      .map((c) => c.record)
      .filter((r) => podUid === undefined || r.podUid === podUid)
  }

  async containerStatus(id: string) {
    return this.#containers.get(id)?.record
  }

  async reopenLog(id: string): Promise<void> {
    this.#find(id, 'ReopenContainerLog')
  }

  async containerStats() {
    return []
  }

  async execSync(id: string, command: readonly string[]): Promise<ExecResult> {
    const { record } = this.#find(id, 'ExecSync')
    if (record.state !== 'running') throw new RuntimeError('call ExecSync', 'other', 'container is not running')
    this.#check('execSync', command.join(' '))
    return this.exec(id, command)
  }

  execUrl(): Promise<string> {
    return Promise.reject(new RuntimeError('call Exec', 'unimplemented', 'the fake has no streams'))
  }

  attachUrl(): Promise<string> {
    return Promise.reject(new RuntimeError('call Attach', 'unimplemented', 'the fake has no streams'))
  }

  portForwardUrl(): Promise<string> {
    return Promise.reject(new RuntimeError('call PortForward', 'unimplemented', 'the fake has no streams'))
  }

  async listImages() {
    return [...this.#images.values()]
  }

  async imageStatus(image: string) {
    return this.#images.get(image)
  }

  async pullImage(image: string): Promise<string> {
    this.#check('pullImage', image)
    throw new RuntimeError('call PullImage', 'other', `failed to resolve reference "${image}": no registry`)
  }

  #find(id: string, call: string): FakeContainer {
    const container = this.#containers.get(id)
    if (container === undefined) throw new RuntimeError(`call ${call}`, 'not-found', `container "${id}": not found`)
    return container
  }
}

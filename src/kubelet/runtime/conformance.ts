import { eventually } from '#base/async/eventually.ts'
import { type ContainerConfig, podLabels, type Runtime, RuntimeError, type SandboxConfig } from './runtime.ts'

/** What a test run hands to the suite. */
export interface RuntimeUnderTest {
  readonly runtime: Runtime
  /** An image that is there, with a shell. */
  readonly image: string
  /** `/weft-test`: pods may have cgroups below it. */
  readonly cgroup: string
  readonly logDir: string
  /** Makes the program in the container end with this code. */
  exit(containerId: string, code: number): Promise<void>
}

/** One promise of the seam: a sentence and what shows it. Throws (or fails `is`) when it is broken. */
export interface RuntimeCase {
  readonly name: string
  run(under: RuntimeUnderTest, is: (actual: unknown, expected: unknown, words?: string) => void): Promise<void>
}

export function sandboxFor(
  uid: string,
  under: Pick<RuntimeUnderTest, 'cgroup' | 'logDir'>,
  attempt = 0,
): SandboxConfig {
  return {
    metadata: { name: `pod-${uid}`, namespace: 'default', uid, attempt },
    hostname: '',
    logDirectory: under.logDir,
    dnsConfig: { servers: [], searches: [], options: [] },
    labels: { [podLabels.uid]: uid, [podLabels.name]: `pod-${uid}`, [podLabels.namespace]: 'default' },
    annotations: { note: 'kept' },
    linux: {
      cgroupParent: `${under.cgroup}/${uid}`,
      sysctls: {},
      securityContext: {
        namespaceOptions: { network: 'NODE', pid: 'CONTAINER', ipc: 'POD' },
        privileged: false,
        readonlyRootfs: false,
        supplementalGroups: [],
        seccomp: { profileType: 'RuntimeDefault' },
      },
    },
  }
}

export function containerFor(name: string, image: string, uid: string, attempt = 0): ContainerConfig {
  return {
    metadata: { name, attempt },
    image: { image, userSpecifiedImage: image },
    // Ends with the code that it finds in a file.
    command: ['sh', '-c', 'while [ ! -f /code ]; do sleep 0.05; done; exit $(cat /code)'],
    args: [],
    workingDir: '',
    envs: [{ key: 'GREETING', value: 'grüße' }],
    mounts: [],
    devices: [],
    labels: { [podLabels.uid]: uid, [podLabels.container]: name },
    annotations: { hash: 'abc' },
    logPath: `${uid}-${name}-${attempt}.log`,
    stdin: false,
    stdinOnce: false,
    tty: false,
    linux: {
      resources: { cpuPeriod: 0, cpuQuota: 0, cpuShares: 2, memoryLimitInBytes: 0, oomScoreAdj: 1000 },
      securityContext: {
        privileged: false,
        namespaceOptions: { network: 'NODE', pid: 'CONTAINER', ipc: 'POD' },
        readonlyRootfs: false,
        supplementalGroups: [],
        noNewPrivs: false,
        maskedPaths: [],
        readonlyPaths: [],
        seccomp: { profileType: 'RuntimeDefault' },
      },
    },
  }
}

async function failureOf(attempt: Promise<unknown>): Promise<string> {
  try {
    await attempt
  } catch (error) {
    if (error instanceof RuntimeError) return error.failure
    throw error
  }
  return 'none'
}

/** What both runtimes promise; run by `runtime.test.ts` on the fake and by test/kubelet on containerd. */
export const runtimeCases: readonly RuntimeCase[] = [
  {
    name: 'a container is created, running, then exited with its code',
    async run(under, is) {
      const { runtime, image } = under
      const config = sandboxFor('a', under)
      const sandbox = await runtime.runSandbox(config, '')
      const id = await runtime.createContainer(sandbox, containerFor('c', image, 'a'), config)
      is((await runtime.containerStatus(id))?.state, 'created')
      await runtime.startContainer(id)
      const running = await runtime.containerStatus(id)
      is(running?.state, 'running')
      is((running?.startedAt ?? 0) > 0, true)
      is(running?.annotations, { hash: 'abc' })
      await under.exit(id, 7)
      const ended = await eventually(async () => {
        const status = await runtime.containerStatus(id)
        return status?.state === 'exited' ? status : false
      })
      is(ended.exitCode, 7)
      is(ended.reason, 'Error')
      await runtime.removeSandbox(sandbox)
      is(await runtime.containerStatus(id), undefined, 'a sandbox takes its containers along')
    },
  },
  {
    name: 'lists are by pod, with what was put on',
    async run(under, is) {
      const { runtime, image } = under
      const config = sandboxFor('b', under, 3)
      const sandbox = await runtime.runSandbox(config, '')
      await runtime.createContainer(sandbox, containerFor('c', image, 'b', 5), config)
      const [found] = await runtime.listSandboxes('b')
      is(
        [found?.podUid, found?.name, found?.namespace, found?.attempt, found?.ready],
        ['b', 'pod-b', 'default', 3, true],
      )
      is(found?.annotations.note, 'kept')
      const [container] = await runtime.listContainers('b')
      is([container?.name, container?.attempt, container?.sandboxId, container?.podUid], ['c', 5, sandbox, 'b'])
      is(await runtime.listSandboxes('nobody'), [])
      is(await runtime.listContainers('nobody'), [])
      await runtime.removeSandbox(sandbox)
    },
  },
  {
    name: 'names are taken until they are given back',
    async run(under, is) {
      const { runtime, image } = under
      const config = sandboxFor('c', under)
      const sandbox = await runtime.runSandbox(config, '')
      is(await failureOf(runtime.runSandbox(config, '')), 'other')
      const first = await runtime.createContainer(sandbox, containerFor('c', image, 'c'), config)
      is(await failureOf(runtime.createContainer(sandbox, containerFor('c', image, 'c'), config)), 'other')
      await runtime.removeContainer(first)
      const second = await runtime.createContainer(sandbox, containerFor('c', image, 'c'), config)
      is(second !== first, true)
      await runtime.removeSandbox(sandbox)
    },
  },
  {
    name: 'stopping and removing what is not there is no error; asking for it is nothing',
    async run({ runtime }, is) {
      await runtime.stopSandbox('none')
      await runtime.removeSandbox('none')
      await runtime.stopContainer('none', 0)
      await runtime.removeContainer('none')
      is(await runtime.containerStatus('none'), undefined)
      is(await runtime.sandboxStatus('none'), undefined)
      is(await runtime.imageStatus('weft.local/none:1'), undefined)
      is(await failureOf(runtime.startContainer('none')), 'not-found')
    },
  },
  {
    name: 'a stop ends the container and says so; a stopped sandbox is not ready',
    async run(under, is) {
      const { runtime, image } = under
      const config = sandboxFor('d', under)
      const sandbox = await runtime.runSandbox(config, '')
      const id = await runtime.createContainer(sandbox, containerFor('c', image, 'd'), config)
      await runtime.startContainer(id)
      await runtime.stopContainer(id, 0)
      is((await runtime.containerStatus(id))?.state, 'exited')
      await runtime.stopSandbox(sandbox)
      await runtime.stopSandbox(sandbox)
      is((await runtime.sandboxStatus(sandbox))?.ready, false)
      is((await failureOf(runtime.createContainer(sandbox, containerFor('x', image, 'd'), config))) !== 'none', true)
      await runtime.removeSandbox(sandbox)
      is(await runtime.listSandboxes('d'), [])
    },
  },
]

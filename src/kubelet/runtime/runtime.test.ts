import test from 'ava'
import { systemClock } from '#base/clock.ts'
import { runtimeCases } from './conformance.ts'
import { formatContainerdConfig } from './containerd-config.ts'
import { FakeRuntime } from './fake.ts'

for (const { name, run } of runtimeCases) {
  test(`the fake: ${name}`, async (t) => {
    const runtime = new FakeRuntime(systemClock, ['busybox:1'])
    const exit = async (id: string, code: number) => runtime.exit(id, code)
    await run({ runtime, image: 'busybox:1', cgroup: '/none', logDir: '/none', exit }, (actual, expected, words) => {
      t.deepEqual(actual, expected, words)
    })
    t.pass()
  })
}

test('formatContainerdConfig() keeps one node apart from another', (t) => {
  const config = formatContainerdConfig({
    rootDir: '/var/lib/weft/c/node-1/containerd',
    stateDir: '/run/weft/c/node-1/containerd',
    socket: '/run/weft/c/node-1/containerd.sock',
    cniBinDir: '/opt/weft "bin"',
    cniConfDir: '/run/weft/c/node-1/cni',
    sandboxImage: 'weft.local/pause:1',
  })
  t.regex(config, /^version = 2$/m)
  t.regex(config, /^Root = "\/run\/weft\/c\/node-1\/containerd\/runc"$/m)
  t.regex(config, /^SystemdCgroup = false$/m)
  t.regex(config, /^restrict_oom_score_adj = true$/m)
  t.regex(config, /^netns_mounts_under_state_dir = true$/m)
  t.regex(config, /^bin_dir = "\/opt\/weft \\"bin\\""$/m)
})

import { existsSync } from 'node:fs'
import { errnoName } from './errno.ts'
import * as ffi from './ffi.ts'

/** An ability of this kernel: a value with a name and the first version that has it, found by trying. */
export interface Feature {
  readonly name: string
  /** First Linux version that has it, where the configuration allows it. */
  readonly since: string
  /** Weft cannot run without it. */
  readonly required: boolean
  /** What it costs not to have it. */
  readonly cost: string
  readonly available: boolean
  /** errno's name where it is not available. */
  readonly reason: string
}

interface Probe extends Omit<Feature, 'available' | 'reason'> {
  /** 0, or the negative errno. */
  try(): number
}

const ENOENT = 2
const nothing = 'Weft does not run'
const device =
  (name: string): (() => number) =>
  () =>
    ffi.probeDevice(name)
const map =
  (type: number): (() => number) =>
  () =>
    ffi.probeMap(type)

const probes: readonly Probe[] = [
  {
    name: 'btf',
    since: '5.4',
    required: true,
    cost: nothing,
    try: () => (existsSync('/sys/kernel/btf/vmlinux') ? 0 : -ENOENT),
  },
  { name: 'tcx', since: '6.6', required: true, cost: nothing, try: ffi.probeTcx },
  { name: 'veth', since: '2.6.24', required: true, cost: nothing, try: device('veth') },
  { name: 'ring-buffer', since: '5.8', required: false, cost: 'no events from the programs', try: map(27) },
  { name: 'sockhash', since: '4.18', required: false, cost: 'local sockets talk through the IP layer', try: map(18) },
  { name: 'netkit', since: '6.7', required: false, cost: 'pods have veth devices', try: device('netkit') },
  { name: 'vxlan', since: '3.7', required: false, cost: 'nodes need routes to each other', try: device('vxlan') },
  { name: 'geneve', since: '3.18', required: false, cost: 'no overlay with options', try: device('geneve') },
  { name: 'wireguard', since: '5.6', required: false, cost: 'no encryption between nodes', try: device('wireguard') },
]

/** Tries everything; takes a few milliseconds and leaves nothing behind. */
export function probeFeatures(): Feature[] {
  return probes.map(({ try: attempt, ...feature }) => {
    const result = attempt()
    return { ...feature, available: result === 0, reason: result === 0 ? '' : errnoName(-result) }
  })
}

/** Throws one line that names what is missing and the version that has it. */
export function requireFeatures(features: readonly Feature[] = probeFeatures()): void {
  const missing = features.filter((f) => f.required && !f.available)
  if (missing.length === 0) return
  const list = missing.map((f) => `${f.name} (${f.reason}; Linux ${f.since} has it)`).join(', ')
  throw new Error(
    `this kernel lacks ${list}: use Linux 6.8 or later with BPF and BTF${missing.every((f) => f.reason === 'EPERM') ? ', and run as root' : ''}`,
  )
}

import { compareText } from '#base/order.ts'
/** Order of API versions as clients expect it: v2, v1, v2beta1, v1beta2, v1alpha1, then any other word alphabetically. */
export function compareVersions(a: string, b: string): number {
  const [x, y] = [parse(a), parse(b)]
  if (x === undefined || y === undefined) return x !== undefined ? -1 : y !== undefined ? 1 : a < b ? -1 : a > b ? 1 : 0
  return y.stage - x.stage || y.major - x.major || y.minor - x.minor
}

function parse(version: string): { stage: number; major: number; minor: number } | undefined {
  const match = /^v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?$/.exec(version)
  if (match === null) return undefined
  const stage = match[2] === 'alpha' ? 0 : match[2] === 'beta' ? 1 : 2
  return { stage, major: Number(match[1]), minor: Number(match[3] ?? 0) }
}

/** Upstream's order of its own groups; kubectl's search for a short name follows it. Others come after, by name. */
const builtInGroups = [
  '',
  'apiregistration.k8s.io',
  'apps',
  'events.k8s.io',
  'authentication.k8s.io',
  'authorization.k8s.io',
  'autoscaling',
  'batch',
  'certificates.k8s.io',
  'networking.k8s.io',
  'policy',
  'rbac.authorization.k8s.io',
  'storage.k8s.io',
  'admissionregistration.k8s.io',
  'apiextensions.k8s.io',
  'scheduling.k8s.io',
  'coordination.k8s.io',
  'node.k8s.io',
  'discovery.k8s.io',
  'resource.k8s.io',
  'flowcontrol.apiserver.k8s.io',
]

export function compareGroups(a: string, b: string): number {
  const [x, y] = [builtInGroups.indexOf(a), builtInGroups.indexOf(b)]
  if (x >= 0 || y >= 0) return (x < 0 ? builtInGroups.length : x) - (y < 0 ? builtInGroups.length : y)
  return compareText(a, b)
}

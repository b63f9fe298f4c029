import type { Node, Taint } from '../gen/core-v1.ts'
import { nodes } from '../gen/resources.ts'
import type { Column } from '../kind.ts'
import { ageColumn, column, nameColumn, wideColumn } from '../meta/columns.ts'
import { findCondition } from '../meta/conditions.ts'
import { defineKind, statusSubresource } from '../meta/define.ts'
import { goForm } from '../meta/go-form.ts'
import { addressFamily, validatePrefix } from '../meta/ip.ts'
import { labelValue, qualifiedName } from '../meta/names.ts'
import { sameJson } from '../meta/patch/json.ts'
import { validateAmounts } from '../meta/resources.ts'
import { type FieldError, fieldError } from '../meta/status.ts'

const rolePrefix = 'node-role.kubernetes.io/'
const effects = ['NoSchedule', 'PreferNoSchedule', 'NoExecute']

function validateTaints(taints: readonly Taint[], errors: FieldError[]): void {
  const seen = new Set<string>()
  for (const [i, taint] of taints.entries()) {
    const at = `metadata.taints[${i}]`
    const { key = '', value = '', effect } = taint
    for (const words of qualifiedName(key)) errors.push(fieldError.invalid(`${at}.key`, key, words))
    for (const words of labelValue(value)) errors.push(fieldError.invalid(`${at}.value`, value, words))
    if (!effect) errors.push(fieldError.required(`${at}.effect`))
    else if (!effects.includes(effect)) errors.push(fieldError.notSupported(`${at}.effect`, effect, effects))
    if (seen.has(`${key}:${effect}`)) {
      const { type, path, message } = fieldError.duplicate(at, goForm(taint, 'core/v1.Taint'))
      errors.push({ type, path, message: `${message}: taints must be unique by key and effect pair` })
    }
    seen.add(`${key}:${effect}`)
  }
}

function validateNode({ spec, status }: Node): FieldError[] {
  const errors: FieldError[] = []
  if (spec.taints) validateTaints(spec.taints, errors)
  const families = new Set<string>()
  for (const [i, prefix] of (spec.podCIDRs ?? []).entries()) {
    errors.push(...validatePrefix(prefix, `spec.podCIDRs[${i}]`))
    families.add(addressFamily(prefix.split('/')[0] ?? '') ?? prefix)
  }
  if ((spec.podCIDRs ?? []).length > families.size) {
    errors.push(
      fieldError.invalid('spec.podCIDRs', spec.podCIDRs, 'may specify no more than one CIDR for each IP family'),
    )
  }
  validateAmounts(status?.capacity, 'status.capacity', errors)
  validateAmounts(status?.allocatable, 'status.allocatable', errors)
  return errors
}

function validateNodeUpdate(next: Node, old: Node): FieldError[] {
  const errors = validateNode(next)
  const before = old.spec.podCIDRs ?? []
  if (before.length > 0 && !sameJson(before, next.spec.podCIDRs ?? [])) {
    errors.push(fieldError.forbidden('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid'))
  }
  if ((next.spec.externalID ?? '') !== (old.spec.externalID ?? '')) {
    errors.push(fieldError.forbidden('spec.externalID', 'may not be updated'))
  }
  if (old.spec.providerID && old.spec.providerID !== next.spec.providerID) {
    errors.push(
      fieldError.forbidden('spec.providerID', 'node updates may not change providerID except from "" to valid'),
    )
  }
  return errors
}

function statusText({ spec, status }: Node): string {
  const ready = findCondition(status.conditions, 'Ready')
  const text = ready === undefined ? 'Unknown' : ready.status === 'True' ? 'Ready' : 'NotReady'
  return spec.unschedulable ? `${text},SchedulingDisabled` : text
}

function rolesOf(node: Node): string {
  const roles = new Set<string>()
  for (const [key, value] of Object.entries(node.metadata.labels ?? {})) {
    if (key.startsWith(rolePrefix) && key.length > rolePrefix.length) roles.add(key.slice(rolePrefix.length))
    else if (key === 'kubernetes.io/role' && value !== '') roles.add(value)
  }
  return roles.size === 0 ? '<none>' : [...roles].sort().join(',')
}

const addressOf = (node: Node, type: string): string =>
  node.status.addresses?.find((address) => address.type === type)?.address ?? '<none>'

const columns: readonly Column<Node>[] = [
  nameColumn,
  column('Status', 'Whether it takes pods.', statusText),
  column('Roles', 'Roles its labels give it.', rolesOf),
  ageColumn,
  column('Version', 'Version of its kubelet.', ({ status }) => status.nodeInfo?.kubeletVersion ?? ''),
  wideColumn('Internal-IP', 'Its address inside the cluster.', (node) => addressOf(node, 'InternalIP')),
  wideColumn('External-IP', 'Its address for the outside.', (node) => addressOf(node, 'ExternalIP')),
  wideColumn('OS-Image', 'Its operating system.', ({ status }) => status.nodeInfo?.osImage || '<unknown>'),
  wideColumn('Kernel-Version', 'Its kernel.', ({ status }) => status.nodeInfo?.kernelVersion || '<unknown>'),
  wideColumn(
    'Container-Runtime',
    'What runs its containers.',
    ({ status }) => status.nodeInfo?.containerRuntimeVersion || '<unknown>',
  ),
]

export const node = defineKind<Node>({
  resource: nodes,
  message: 'core/v1.Node',
  description: 'A machine that runs pods.',
  shortNames: ['no'],
  subresources: [statusSubresource],
  defaults(object) {
    object.spec ??= {}
    object.status ??= {} as Node['status']
    // One field and its plural: whichever was written fills the other.
    const { spec } = object
    if (spec.podCIDR && (spec.podCIDRs ?? []).length === 0) spec.podCIDRs = [spec.podCIDR]
    const [first] = spec.podCIDRs ?? []
    if (first !== undefined) spec.podCIDR = first
    object.status.allocatable ??= object.status.capacity === undefined ? {} : { ...object.status.capacity }
    if (Object.keys(object.status.allocatable).length === 0) delete object.status.allocatable
  },
  createsWithStatus: true,
  validate: validateNode,
  validateUpdate: validateNodeUpdate,
  validateStatusUpdate: validateNodeUpdate,
  columns,
  selectableFields: { 'spec.unschedulable': ({ spec }) => String(spec.unschedulable ?? false) },
})

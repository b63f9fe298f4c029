/**
 * Writes src/api/gen/ from the published Go modules of the Kubernetes API: TypeScript types, the field table and the
 * list of resources. Run it with `npm run generate`; it needs Go on the PATH (only to fetch the modules).
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { disagreements } from './crosscheck.ts'
import { type GoField, type GoPackage, type GoType, parseGoPackage } from './go-types.ts'
import { fetchModules, version } from './modules.ts'
import { parseProtoMessages } from './proto.ts'
import type { Row } from './row.ts'

/** Short package name -> Go import path, API group and version. Order is the order of output. */
const packages: Record<string, { path: string; group?: string; version?: string }> = {
  'meta/v1': { path: 'k8s.io/apimachinery/pkg/apis/meta/v1' },
  'core/v1': { path: 'k8s.io/api/core/v1', group: '', version: 'v1' },
  'admissionregistration/v1': {
    path: 'k8s.io/api/admissionregistration/v1',
    group: 'admissionregistration.k8s.io',
    version: 'v1',
  },
  'apiextensions/v1': {
    path: 'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1',
    group: 'apiextensions.k8s.io',
    version: 'v1',
  },
  'apiregistration/v1': {
    path: 'k8s.io/kube-aggregator/pkg/apis/apiregistration/v1',
    group: 'apiregistration.k8s.io',
    version: 'v1',
  },
  'apps/v1': { path: 'k8s.io/api/apps/v1', group: 'apps', version: 'v1' },
  'authentication/v1': { path: 'k8s.io/api/authentication/v1', group: 'authentication.k8s.io', version: 'v1' },
  'authorization/v1': { path: 'k8s.io/api/authorization/v1', group: 'authorization.k8s.io', version: 'v1' },
  'autoscaling/v1': { path: 'k8s.io/api/autoscaling/v1', group: 'autoscaling', version: 'v1' },
  'autoscaling/v2': { path: 'k8s.io/api/autoscaling/v2', group: 'autoscaling', version: 'v2' },
  'batch/v1': { path: 'k8s.io/api/batch/v1', group: 'batch', version: 'v1' },
  'certificates/v1': { path: 'k8s.io/api/certificates/v1', group: 'certificates.k8s.io', version: 'v1' },
  'coordination/v1': { path: 'k8s.io/api/coordination/v1', group: 'coordination.k8s.io', version: 'v1' },
  'discovery/v1': { path: 'k8s.io/api/discovery/v1', group: 'discovery.k8s.io', version: 'v1' },
  'events/v1': { path: 'k8s.io/api/events/v1', group: 'events.k8s.io', version: 'v1' },
  'flowcontrol/v1': { path: 'k8s.io/api/flowcontrol/v1', group: 'flowcontrol.apiserver.k8s.io', version: 'v1' },
  'networking/v1': { path: 'k8s.io/api/networking/v1', group: 'networking.k8s.io', version: 'v1' },
  'node/v1': { path: 'k8s.io/api/node/v1', group: 'node.k8s.io', version: 'v1' },
  'policy/v1': { path: 'k8s.io/api/policy/v1', group: 'policy', version: 'v1' },
  'rbac/v1': { path: 'k8s.io/api/rbac/v1', group: 'rbac.authorization.k8s.io', version: 'v1' },
  'resource/v1': { path: 'k8s.io/api/resource/v1', group: 'resource.k8s.io', version: 'v1' },
  'scheduling/v1': { path: 'k8s.io/api/scheduling/v1', group: 'scheduling.k8s.io', version: 'v1' },
  'storage/v1': { path: 'k8s.io/api/storage/v1', group: 'storage.k8s.io', version: 'v1' },
}

/** Go types whose JSON form is a scalar of their own; the field table names them so. */
const scalars: Record<string, string> = {
  'k8s.io/apimachinery/pkg/apis/meta/v1.Time': 'time',
  'k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime': 'microtime',
  'k8s.io/apimachinery/pkg/apis/meta/v1.Duration': 'duration',
  'k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1': 'fieldsv1',
  'k8s.io/apimachinery/pkg/api/resource.Quantity': 'quantity',
  'k8s.io/apimachinery/pkg/util/intstr.IntOrString': 'intorstring',
  'k8s.io/apimachinery/pkg/runtime.RawExtension': 'rawextension',
  'k8s.io/apimachinery/pkg/types.UID': 'string',
  'k8s.io/apimachinery/pkg/types.NodeName': 'string',
  'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON': 'json',
  'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray': 'schemaorarray',
  'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool': 'schemaorbool',
  'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray': 'schemaorstrings',
}
const goScalars: Record<string, string> = {
  string: 'string',
  bool: 'bool',
  int32: 'int32',
  int64: 'int64',
  int: 'int64',
  uint32: 'int64',
  uint64: 'int64',
  float64: 'double',
  byte: 'byte',
}
const tsScalars: Record<string, string> = {
  string: 'string',
  bool: 'boolean',
  int32: 'number',
  int64: 'number',
  double: 'number',
  bytes: 'string',
  time: 'string',
  microtime: 'string',
  duration: 'string',
  quantity: 'string',
  intorstring: 'number | string',
  fieldsv1: 'Record<string, unknown>',
  rawextension: 'unknown',
  json: 'unknown',
  schemaorarray: 'JSONSchemaProps | JSONSchemaProps[]',
  schemaorbool: 'JSONSchemaProps | boolean',
  schemaorstrings: 'JSONSchemaProps | string[]',
}

interface Resolved {
  readonly scalar?: string
  readonly message?: string
  readonly pointer: boolean
  readonly repeated: boolean
  readonly map: boolean
  readonly enum?: string[]
  /** Go's name of a named string or number, as its decoder prints it: `v1.RestartPolicy`. */
  readonly named?: string
  /** A named slice: protobuf has it as a message with one field `items`. */
  readonly wrapped?: boolean
}

const shortOf = new Map(Object.entries(packages).map(([short, { path }]) => [path, short]))
const parsed = new Map<string, GoPackage>()

const modules = ['k8s.io/api', 'k8s.io/apimachinery', 'k8s.io/apiextensions-apiserver', 'k8s.io/kube-aggregator']
const protos = new Map<string, string>()

function load(): void {
  const dirs = fetchModules(modules)
  for (const [short, { path }] of Object.entries(packages)) {
    const module = [...dirs.keys()].find((m) => path.startsWith(`${m}/`)) ?? ''
    const dir = join(dirs.get(module) ?? '', path.slice(module.length))
    const files = readdirSync(dir).filter(
      (f) => f.endsWith('.go') && !f.endsWith('_test.go') && !/^(generated|zz_|types_swagger)/.test(f),
    )
    protos.set(short, readFileSync(join(dir, 'generated.proto'), 'utf8'))
    parsed.set(short, parseGoPackage(files.map((f) => readFileSync(join(dir, f), 'utf8'))))
  }
}

function resolve(short: string, goType: string): Resolved {
  if (goType.startsWith('*')) return { ...resolve(short, goType.slice(1)), pointer: true }
  if (goType === '[]byte') return { scalar: 'bytes', pointer: false, repeated: false, map: false }
  if (goType.startsWith('[]')) return { ...resolve(short, goType.slice(2)), repeated: true, pointer: false }
  const map = /^map\[[\w.]+\](.*)$/.exec(goType)
  if (map?.[1]) return { ...resolve(short, map[1]), map: true, pointer: false }
  const plain = goScalars[goType]
  if (plain !== undefined) return { scalar: plain, pointer: false, repeated: false, map: false }
  const pkg = parsed.get(short)
  const [qualifier, name] = goType.includes('.') ? goType.split('.') : [undefined, goType]
  const path = qualifier === undefined ? packages[short]?.path : pkg?.imports.get(qualifier)
  const special = scalars[`${path}.${name}`]
  if (special !== undefined) return { scalar: special, pointer: false, repeated: false, map: false }
  const target = path === undefined ? undefined : shortOf.get(path)
  if (target === undefined || name === undefined) throw new Error(`${short}: cannot resolve Go type ${goType}`)
  const type = parsed.get(target)?.types.get(name)
  if (type === undefined) throw new Error(`${short}: ${goType} is not declared in ${target}`)
  if (type.kind === 'struct') return { message: `${target}.${name}`, pointer: false, repeated: false, map: false }
  const resolved = resolve(target, type.target)
  if (resolved.repeated && resolved.scalar === 'string') return { ...resolved, wrapped: true }
  if (resolved.repeated || resolved.map) return resolved
  const values = parsed.get(target)?.constants.get(name)
  const named = `${target.split('/')[1]}.${name}`
  return type.markers.has('enum') && values !== undefined
    ? { ...resolved, named, enum: values }
    : { ...resolved, named }
}

function row(short: string, field: GoField): Row {
  const r = resolve(short, field.goType)
  const isStruct = r.message !== undefined && !r.pointer && !r.repeated && !r.map
  const out: Row = { n: field.json, t: r.message ?? r.scalar ?? '' }
  if (field.proto !== undefined) out.p = field.proto
  if (r.repeated) out.r = 1
  if (r.map) out.m = 1
  if (field.inline) out.i = 1
  if (r.pointer) out.ptr = 1
  if (!field.omitempty && !field.omitzero && !field.optionalMarker && !field.inline) out.q = 1
  const isQuantity = r.scalar === 'quantity' && !r.pointer && !r.repeated && !r.map
  if ((isStruct || isQuantity) && !field.omitzero && !field.inline) out.s = 1
  if (r.wrapped) out.w = 1
  if (r.named) out.g = r.named
  const listType = field.markers.get('listType')?.[0] ?? field.markers.get('k8s:listType')?.[0]
  if (listType) out.l = listType
  const keys = field.markers.get('listMapKey') ?? field.markers.get('k8s:listMapKey')
  if (keys) out.k = keys
  const mapType = field.markers.get('mapType')?.[0] ?? field.markers.get('structType')?.[0]
  if (mapType) out.mt = mapType
  if (field.patchStrategy) out.ps = field.patchStrategy
  if (field.patchMergeKey) out.mk = field.patchMergeKey
  const fallback = field.markers.get('default')?.[0]
  if (fallback !== undefined) {
    try {
      const value: unknown = JSON.parse(fallback)
      // A zero value behind omitempty is never written, so it is no default.
      if (r.pointer || (value !== '' && value !== 0 && value !== false)) out.d = value
    } catch {
      // `ref(...)` defaults point at Go constants; those are written by hand in the kinds' files.
    }
  }
  if (r.enum && !r.map) out.e = r.enum
  return out
}

function isKind(type: GoType): boolean {
  return type.kind === 'struct' && type.fields.some((f) => f.goType === 'metav1.TypeMeta' || f.goType === 'TypeMeta')
}

function roots(short: string): Set<string> {
  const out = new Set<string>()
  for (const [name, type] of parsed.get(short)?.types ?? []) if (isKind(type)) out.add(name)
  return out
}

function plural(kind: string): string {
  const name = kind.toLowerCase()
  if (name === 'endpoints') return name
  if (/(s|x|ch)$/.test(name)) return `${name}es`
  return name.endsWith('y') ? `${name.slice(0, -1)}ies` : `${name}s`
}

function tsName(short: string): string {
  return short.replace('/', '-')
}

function tsType(short: string, r: Row, imports: Set<string>): string {
  let base = tsScalars[r.t]
  if (base === undefined) {
    const dot = r.t.lastIndexOf('.')
    const [target, name] = [r.t.slice(0, dot), r.t.slice(dot + 1)]
    if (target === short) base = name
    else {
      imports.add(target)
      base = `${tsName(target).replace(/-(\w)/g, (_, c: string) => c.toUpperCase())}.${name}`
    }
  }
  if (r.e && r.e.length > 0 && r.t === 'string') base = r.e.map((v) => `'${v}'`).join(' | ')
  if (r.r) base = base.includes('|') ? `(${base})[]` : `${base}[]`
  return r.m ? `Record<string, ${base}>` : base
}

function emitTypes(short: string): { text: string; messages: Record<string, Row[]> } {
  const pkg = parsed.get(short)
  const imports = new Set<string>()
  const kinds = roots(short)
  const messages: Record<string, Row[]> = {}
  const out: string[] = []
  for (const [name, type] of [...(pkg?.types ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (type.kind !== 'struct' || scalars[`${packages[short]?.path}.${name}`] !== undefined) continue
    let rows: Row[]
    try {
      rows = type.fields.map((f) => row(short, f))
    } catch (error) {
      if (type.fields.every((f) => f.proto === undefined)) continue
      throw error
    }
    if (rows.length === 0 && type.fields.length === 0 && !/Options|Source|Status|Spec|Field|Match/.test(name)) continue
    messages[`${short}.${name}`] = rows
    const genclient = type.markers.has('genclient')
    const namespaced = genclient && !type.markers.has('genclient:nonNamespaced')
    const bases: string[] = []
    const lines: string[] = []
    for (const r of rows) {
      if (r.i) {
        if (r.t === 'meta/v1.TypeMeta') lines.push(`  apiVersion: '${apiVersion(short)}'`, `  kind: '${name}'`)
        else bases.push(tsType(short, r, imports))
        continue
      }
      let type = tsType(short, r, imports)
      if (r.t === 'meta/v1.ObjectMeta' && !kinds.has(name)) type = 'Partial<metaV1.ObjectMeta>'
      if (r.t === 'meta/v1.ObjectMeta' && kinds.has(name) && namespaced) type = 'metaV1.NamespacedMeta'
      const field = isOptional(r, short, name) ? '?' : ''
      lines.push(`  ${r.n.includes('-') || r.n.startsWith('$') ? `'${r.n}'` : r.n}${field}: ${type}`)
    }
    const ext = bases.length > 0 ? ` extends ${bases.join(', ')}` : ''
    out.push(`export interface ${name}${ext} {\n${lines.join('\n')}\n}\n`)
  }
  if (short === 'meta/v1')
    out.push(
      '/** Metadata of an object that lives in a namespace. */\nexport interface NamespacedMeta extends ObjectMeta {\n  namespace: string\n}\n',
    )
  const head = [...imports]
    .sort()
    .map(
      (i) =>
        `import type * as ${tsName(i).replace(/-(\w)/g, (_, c: string) => c.toUpperCase())} from './${tsName(i)}.ts'`,
    )
  return {
    text: `// Generated by npm run generate from ${packages[short]?.path} ${version}. Do not edit.\n${head.join('\n')}\n\n${out.join('\n')}`,
    messages,
  }
}

function apiVersion(short: string): string {
  const p = packages[short]
  if (p?.version === undefined) return 'v1'
  return p.group ? `${p.group}/${p.version}` : p.version
}

const stored = new Set(['name', 'uid', 'resourceVersion', 'creationTimestamp'])
function isOptional(r: Row, short: string, name: string): boolean {
  if (short === 'meta/v1' && name === 'ObjectMeta') return !stored.has(r.n)
  if (r.s && r.t !== 'quantity') return false
  return r.q === undefined
}

function resources(): string {
  const lines: string[] = []
  const imports: string[] = []
  const seen = new Set<string>()
  for (const [short, { group, version: v }] of Object.entries(packages)) {
    if (group === undefined || v === undefined) continue
    const alias = tsName(short).replace(/-(\w)/g, (_, c: string) => c.toUpperCase())
    let used = false
    for (const [name, type] of [...(parsed.get(short)?.types ?? [])].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (type.kind !== 'struct' || !type.markers.has('genclient') || name === 'Scale') continue
      const namespaced = !type.markers.has('genclient:nonNamespaced')
      const resource = plural(name)
      let constant = plural(name).length === name.length ? name : `${name}${resource.slice(name.length)}`
      if (resource.endsWith('ies') && name.endsWith('y')) constant = `${name.slice(0, -1)}ies`
      constant = constant.replace(/^[A-Z]+(?=[A-Z][a-z])|^[A-Z]/, (c) => c.toLowerCase())
      if (seen.has(constant))
        constant = `${short.split('/')[0]}${v === 'v1' ? '' : v.toUpperCase()}${constant.replace(/^./, (c) => c.toUpperCase())}`
      seen.add(constant)
      used = true
      lines.push(
        `export const ${constant}: Resource<${alias}.${name}> = { group: '${group}', version: '${v}', resource: '${resource}', kind: '${name}', namespaced: ${namespaced} }`,
      )
    }
    if (used) imports.push(`import type * as ${alias} from './${tsName(short)}.ts'`)
  }
  return `// Generated by npm run generate from the modules ${version}. Do not edit.\nimport type { Resource } from '../meta/resource.ts'\n${imports.join('\n')}\n\n${lines.join('\n')}\n`
}

load()
const gen = new URL('../../src/api/gen/', import.meta.url)
const table: Record<string, Row[]> = {}
for (const short of Object.keys(packages)) {
  const { text, messages } = emitTypes(short)
  Object.assign(table, messages)
  writeFileSync(new URL(`${tsName(short)}.ts`, gen), text)
}
const wrong = Object.keys(packages).flatMap((short) =>
  disagreements(short, table, parseProtoMessages(protos.get(short) ?? '')),
)
if (wrong.length > 0) throw new Error(`The table and generated.proto disagree:\n${wrong.join('\n')}`)
// Messages that server-side apply and clients treat as one value.
const atomic = Object.keys(table).filter((name) => {
  const [short = '', type = ''] = [name.slice(0, name.lastIndexOf('.')), name.slice(name.lastIndexOf('.') + 1)]
  return parsed.get(short)?.types.get(type)?.markers.get('structType')?.[0] === 'atomic'
})
const body = Object.entries(table).map(
  ([name, rows]) =>
    `${JSON.stringify(name)}:[${rows.length > 0 ? '\n' : ''}${rows.map((r) => JSON.stringify(r)).join(',\n')}]`,
)
writeFileSync(new URL('table.json', gen), `{\n"#atomic":${JSON.stringify(atomic)},\n${body.join(',\n')}\n}\n`)
writeFileSync(new URL('resources.ts', gen), resources())
process.stdout.write(`${Object.keys(table).length} messages, ${Object.values(table).flat().length} fields\n`)

import type { ConfigMap, Container, EnvVar, Pod, Secret, Service } from '#api/gen/core-v1.ts'
import { fieldValue, type NodeFacts, resourceValue } from './downward.ts'
import { expand } from './expand.ts'

/** Where values come from; all of it is at hand before, so that this stays a function. */
export interface EnvSources {
  readonly configMap: (name: string) => ConfigMap | undefined
  readonly secret: (name: string) => Secret | undefined
  /** Of the pod's namespace, and `kubernetes` of the default one. */
  readonly services: readonly Service[]
  readonly node: NodeFacts
  readonly podIps: readonly string[]
}

/** A reference that leads nowhere: the container waits with CreateContainerConfigError and this message. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

/** Names of the objects that a container's environment needs. */
export function envReferences(container: Container): { configMaps: string[]; secrets: string[] } {
  const configMaps = new Set<string>()
  const secrets = new Set<string>()
  for (const { configMapRef, secretRef } of container.envFrom ?? []) {
    if (configMapRef?.name) configMaps.add(configMapRef.name)
    if (secretRef?.name) secrets.add(secretRef.name)
  }
  for (const { valueFrom } of container.env ?? []) {
    if (valueFrom?.configMapKeyRef?.name) configMaps.add(valueFrom.configMapKeyRef.name)
    if (valueFrom?.secretKeyRef?.name) secrets.add(valueFrom.secretKeyRef.name)
  }
  return { configMaps: [...configMaps], secrets: [...secrets] }
}

/** The environment: services, then envFrom, then env; what comes later wins. Throws `ConfigError`. */
export function environmentOf(pod: Pod, container: Container, sources: EnvSources): Map<string, string> {
  const env = serviceEnv(pod, sources.services)
  addFrom(env, pod, container, sources)
  for (const variable of container.env ?? []) {
    const value = variableValue(variable, pod, container, sources, env)
    if (value !== undefined) env.set(variable.name, value)
  }
  return env
}

/** A name that a shell could read back (upstream's relaxed rule: any printable ASCII but `=`). */
const envName = /^[ -<>-~]+$/

function addFrom(env: Map<string, string>, pod: Pod, container: Container, { configMap, secret }: EnvSources): void {
  const { namespace } = pod.metadata
  for (const { prefix = '', configMapRef, secretRef } of container.envFrom ?? []) {
    if (configMapRef !== undefined) {
      const found = configMap(configMapRef.name ?? '')
      if (found === undefined && configMapRef.optional !== true)
        throw new ConfigError(`configmap "${configMapRef.name}" not found`)
      for (const [key, value] of Object.entries(found?.data ?? {}))
        if (envName.test(prefix + key)) env.set(prefix + key, value)
    }
    if (secretRef !== undefined) {
      const found = secret(secretRef.name ?? '')
      if (found === undefined && secretRef.optional !== true)
        throw new ConfigError(`secret "${secretRef.name}" not found`)
      for (const [key, value] of Object.entries(found?.data ?? {}))
        if (envName.test(prefix + key)) env.set(prefix + key, decode(value))
    }
  }
  if (namespace === undefined) throw new ConfigError('a pod without a namespace has no environment')
}

const decode = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8')

function variableValue(
  { value, valueFrom }: EnvVar,
  pod: Pod,
  container: Container,
  sources: EnvSources,
  env: ReadonlyMap<string, string>,
): string | undefined {
  if (valueFrom === undefined) return expand(value ?? '', (name) => env.get(name))
  const { namespace } = pod.metadata
  try {
    if (valueFrom.fieldRef) return fieldValue(pod, valueFrom.fieldRef.fieldPath, sources.node, sources.podIps)
    if (valueFrom.resourceFieldRef) {
      const { containerName } = valueFrom.resourceFieldRef
      const all = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])]
      const of = containerName ? all.find((c) => c.name === containerName) : container
      return resourceValue(of, valueFrom.resourceFieldRef, sources.node)
    }
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error), { cause: error })
  }
  if (valueFrom.configMapKeyRef) {
    const { name = '', key, optional } = valueFrom.configMapKeyRef
    const found = sources.configMap(name)
    const held = found?.data?.[key]
    if (held !== undefined || optional === true) return held
    if (found === undefined) throw new ConfigError(`configmap "${name}" not found`)
    throw new ConfigError(`couldn't find key ${key} in ConfigMap ${namespace}/${name}`)
  }
  if (valueFrom.secretKeyRef) {
    const { name = '', key, optional } = valueFrom.secretKeyRef
    const found = sources.secret(name)
    const held = found?.data?.[key]
    if (held !== undefined) return decode(held)
    if (optional === true) return undefined
    if (found === undefined) throw new ConfigError(`secret "${name}" not found`)
    throw new ConfigError(`couldn't find key ${key} in Secret ${namespace}/${name}`)
  }
  throw new ConfigError('this source of an environment variable is not supported')
}

/** Docker's links of old, which upstream still writes: `WEB_SERVICE_HOST`, `WEB_PORT_80_TCP_ADDR` and so on. */
function serviceEnv(pod: Pod, services: readonly Service[]): Map<string, string> {
  const env = new Map<string, string>()
  for (const service of services) {
    const { name, namespace } = service.metadata
    const master = namespace === 'default' && name === 'kubernetes'
    if (!master && (namespace !== pod.metadata.namespace || pod.spec.enableServiceLinks === false)) continue
    const ip = service.spec.clusterIP
    const ports = service.spec.ports ?? []
    const [first] = ports
    if (!ip || ip === 'None' || first === undefined) continue
    const prefix = name.toUpperCase().replaceAll('-', '_')
    const host = ip.includes(':') ? `[${ip}]` : ip
    env.set(`${prefix}_SERVICE_HOST`, ip)
    env.set(`${prefix}_SERVICE_PORT`, String(first.port))
    for (const { name: portName, port } of ports)
      if (portName) env.set(`${prefix}_SERVICE_PORT_${portName.toUpperCase().replaceAll('-', '_')}`, String(port))
    env.set(`${prefix}_PORT`, `${(first.protocol ?? 'TCP').toLowerCase()}://${host}:${first.port}`)
    for (const { protocol = 'TCP', port } of ports) {
      const base = `${prefix}_PORT_${port}_${protocol}`
      env.set(base, `${protocol.toLowerCase()}://${host}:${port}`)
      env.set(`${base}_PROTO`, protocol.toLowerCase())
      env.set(`${base}_PORT`, String(port))
      env.set(`${base}_ADDR`, ip)
    }
  }
  return env
}

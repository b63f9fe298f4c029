import { addressBytes } from './address.ts'
import type { Cluster, Labels, NetworkPolicy, Pod, Selector } from './cluster.ts'
import type { Direction } from './policy.ts'

/**
 * NetworkPolicy once more, by another way, to hold policy.ts against: every policy is written out as the list of all
 * (pod, peer pod or address, protocol, port) that it allows, and a question is a look into that list. Only small worlds
 * can be written out.
 */

const numbers = { TCP: 6, UDP: 17, SCTP: 132 } as const

export interface Question {
  readonly direction: Direction
  readonly pod: Pod
  readonly peer: Pod | undefined
  readonly address: string
  readonly protocol: number
  /** -1 for what has none. */
  readonly port: number
}

/** True: allowed. `ports` are those that may be asked about. */
export function allowedBySecond(cluster: Cluster, question: Question, ports: readonly number[]): boolean {
  const selecting: NetworkPolicy[] = []
  for (const policy of cluster.policies.values()) {
    const types = new Set<string>(policy.spec.policyTypes ?? [])
    if (types.size === 0) {
      types.add('Ingress')
      if (policy.spec.egress?.length) types.add('Egress')
    }
    if (!types.has(question.direction === 'ingress' ? 'Ingress' : 'Egress')) continue
    if (policy.namespace === question.pod.namespace && pick(policy.spec.podSelector, [question.pod]).length === 1)
      selecting.push(policy)
  }
  if (selecting.length === 0 || question.pod === question.peer) return true
  return selecting.some((policy) => written(cluster, policy, question, ports).has(keyOf(question)))
}

const keyOf = ({ address, protocol, port }: Pick<Question, 'address' | 'protocol' | 'port'>): string =>
  `${address} ${protocol} ${port}`

function written(cluster: Cluster, policy: NetworkPolicy, question: Question, ports: readonly number[]): Set<string> {
  const list = new Set<string>()
  const ingress = question.direction === 'ingress'
  const rules = ingress ? (policy.spec.ingress ?? []) : (policy.spec.egress ?? [])
  const pods = [...cluster.pods.values()].filter((pod) => !pod.hostNetwork)
  for (const rule of rules) {
    const peers = ('from' in rule ? rule.from : 'to' in rule ? rule.to : undefined) ?? []
    // Whom it means, each with the pod whose port names count for an egress rule.
    const whom: { address: string; pod: Pod | undefined }[] = []
    const all = (list: readonly Pod[]): void => {
      for (const pod of list) for (const address of pod.addresses) whom.push({ address, pod })
    }
    if (peers.length === 0) {
      all(pods)
      if (question.peer === undefined) whom.push({ address: question.address, pod: undefined })
    }
    for (const { ipBlock, podSelector, namespaceSelector } of peers) {
      if (ipBlock) {
        const out = (ipBlock.except ?? []).some((e) => inside(e, question.address))
        if (inside(ipBlock.cidr, question.address) && !out) whom.push({ address: question.address, pod: undefined })
        continue
      }
      const homes = namespaceSelector
        ? [...cluster.namespaces.values()].filter((n) => fits(namespaceSelector, n.labels)).map((n) => n.name)
        : [policy.namespace]
      all(
        pick(
          podSelector ?? {},
          pods.filter((pod) => homes.includes(pod.namespace)),
        ),
      )
    }
    for (const { address, pod } of whom) {
      if (!rule.ports?.length) {
        for (const protocol of [1, 58, 47, 6, 17, 132])
          for (const port of [...ports, -1]) list.add(`${address} ${protocol} ${port}`)
        continue
      }
      for (const { protocol = 'TCP', port, endPort } of rule.ports) {
        const named = (ingress ? question.pod : pod)?.ports ?? []
        for (const number of ports) {
          const fitsPort =
            port === undefined ||
            (typeof port === 'number'
              ? number >= port && number <= (endPort ?? port)
              : named.some((p) => p.name === port && p.protocol === protocol && p.port === number))
          if (fitsPort) list.add(`${address} ${numbers[protocol]} ${number}`)
        }
      }
    }
  }
  return list
}

const pick = (selector: Selector, pods: readonly Pod[]): Pod[] => pods.filter((pod) => fits(selector, pod.labels))

function fits(selector: Selector, labels: Labels): boolean {
  for (const key of Object.keys(selector.matchLabels ?? {}))
    if (labels[key] !== selector.matchLabels?.[key]) return false
  for (const { key, operator, values } of selector.matchExpressions ?? []) {
    const has = Object.hasOwn(labels, key)
    const among = has && (values ?? []).some((v) => v === labels[key])
    if (operator === 'In' && !among) return false
    if (operator === 'NotIn' && among) return false
    if (operator === 'Exists' && !has) return false
    if (operator === 'DoesNotExist' && has) return false
  }
  return true
}

/** By numbers instead of bytes. */
function inside(network: string, address: string): boolean {
  const [base = '', bits = ''] = network.split('/')
  const value = (text: string): bigint => addressBytes(text).reduce((n, byte) => (n << 8n) | BigInt(byte), 0n)
  const size = addressBytes(base).length
  if (size !== addressBytes(address).length) return false
  const shift = BigInt(8 * size - Number(bits))
  return value(base) >> shift === value(address) >> shift
}

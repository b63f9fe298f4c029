import type { PolicyRule } from '#api/gen/rbac-v1.ts'
import type { Attributes, Decision, Registry, User } from '../step.ts'
import { NodeGraph, type ReferenceKind } from './node-graph.ts'
import { ruleAllows } from './rules.ts'

/** The node a user is, `''` when it says it is one but not which, undefined for everybody else. */
export function nodeNameOf({ name, groups }: User): string | undefined {
  if (!groups.includes('system:nodes')) return undefined
  return name.startsWith('system:node:') ? name.slice('system:node:'.length) : undefined
}

const allowed: Decision = { allowed: true, reason: '' }
const no = (reason: string): Decision => ({ allowed: false, reason })

/** What every node may do whatever runs on it. */
export const nodeRules: readonly PolicyRule[] = [
  { verbs: ['create'], apiGroups: ['authentication.k8s.io'], resources: ['tokenreviews'] },
  {
    verbs: ['create'],
    apiGroups: ['authorization.k8s.io'],
    resources: ['subjectaccessreviews', 'localsubjectaccessreviews'],
  },
  { verbs: ['get', 'list', 'watch'], apiGroups: [''], resources: ['services'] },
  { verbs: ['create', 'update', 'patch'], apiGroups: ['', 'events.k8s.io'], resources: ['events'] },
  {
    verbs: ['create', 'get', 'list', 'watch'],
    apiGroups: ['certificates.k8s.io'],
    resources: ['certificatesigningrequests'],
  },
  { verbs: ['get', 'list', 'watch'], apiGroups: ['node.k8s.io'], resources: ['runtimeclasses'] },
]

/**
 * What a node may do: itself, the pods bound to it, and what those pods name. No opinion about anybody else (undefined).
 * What is left open here (create and update of its Node, of its pods' status) is closed by NodeRestriction in admission,
 * which sees the objects.
 */
export class NodeAuthorizer {
  readonly #graph: NodeGraph

  constructor(registry: Registry) {
    this.#graph = new NodeGraph(registry)
  }

  authorize(asked: Attributes): Decision | undefined {
    const node = nodeNameOf(asked.user)
    if (node === undefined) return undefined
    if (node === '') return no(`unknown node for user ${JSON.stringify(asked.user.name)}`)
    if (asked.path === undefined) {
      switch (`${asked.group}/${asked.resource}`) {
        case '/nodes':
          return ownNode(node, asked)
        case '/pods':
          return this.#pods(node, asked)
        case '/secrets':
          return this.#read('secret', node, asked)
        case '/configmaps':
          return this.#read('configmap', node, asked)
        case '/serviceaccounts':
          return this.#token(node, asked)
        case 'coordination.k8s.io/leases':
          return ownLease(node, asked)
        default:
      }
    }
    return nodeRules.some((rule) => ruleAllows(rule, asked)) ? allowed : no('')
  }

  #pods(node: string, asked: Attributes): Decision {
    const { verb, subresource, namespace } = asked
    if (subresource === 'status') return verb === 'update' || verb === 'patch' ? allowed : no('')
    if (subresource === 'eviction') return verb === 'create' ? allowed : no('')
    if (subresource !== '') return no('')
    switch (verb) {
      case 'create':
      case 'delete':
        return allowed
      case 'get':
        return this.#related('pod', node, namespace, asked.name)
      case 'list':
      case 'watch': {
        if (selected(asked, 'spec.nodeName') === node) return allowed
        const name = nameOf(asked)
        if (name !== '') return this.#related('pod', node, namespace, name)
        return no('can only list/watch pods with spec.nodeName field selector')
      }
      default:
        return no('')
    }
  }

  #read(kind: ReferenceKind, node: string, asked: Attributes): Decision {
    if (!['get', 'list', 'watch'].includes(asked.verb)) return no('can only read resources of this type')
    if (asked.subresource !== '') return no('cannot read subresource')
    if (asked.namespace === '') return no('can only read namespaced object of this type')
    const name = nameOf(asked)
    return name === '' ? no('No Object name found') : this.#related(kind, node, asked.namespace, name)
  }

  #token(node: string, { verb, subresource, namespace, name }: Attributes): Decision {
    if (verb !== 'create' || name === '') return no('can only create tokens for individual service accounts')
    if (subresource !== 'token') return no('can only create token subresource of serviceaccount')
    return this.#related('serviceaccount', node, namespace, name)
  }

  #related(kind: ReferenceKind, node: string, namespace: string, name: string): Decision {
    if (this.#graph.reaches(node, kind, namespace, name)) return allowed
    return no(`no relationship found between node '${node}' and this object`)
  }
}

function ownNode(node: string, asked: Attributes): Decision {
  const { verb, subresource } = asked
  if (subresource === 'status') return verb === 'update' || verb === 'patch' ? allowed : no('')
  if (subresource !== '') return no('')
  if (['create', 'update', 'patch'].includes(verb)) return allowed
  if (!['get', 'list', 'watch'].includes(verb)) return no('')
  const name = nameOf(asked)
  if (name === node) return allowed
  return no(
    name === ''
      ? `node '${node}' cannot read all nodes, only its own Node object`
      : `node '${node}' cannot read '${name}', only its own Node object`,
  )
}

function ownLease(node: string, { verb, namespace, name }: Attributes): Decision {
  if (!['get', 'create', 'update', 'patch', 'delete'].includes(verb)) {
    return no('can only get, create, update, patch, or delete a node lease')
  }
  if (namespace !== 'kube-node-lease') return no('can only access leases in the "kube-node-lease" system namespace')
  // On create the name is only known to admission.
  if (verb !== 'create' && name !== node) {
    return no('can only access node lease with the same name as the requesting node')
  }
  return allowed
}

/** The one object a list or watch is narrowed to. */
const nameOf = (asked: Attributes): string =>
  asked.name !== '' ? asked.name : (selected(asked, 'metadata.name') ?? '')

function selected({ fieldSelector }: Attributes, field: string): string | undefined {
  for (const term of fieldSelector?.split(',') ?? []) {
    const [, key, value] = /^([^=!]+)==?([^=].*)$/.exec(term) ?? []
    if (key === field) return value
  }
  return undefined
}

import type { TokenRequest } from '#api/gen/authentication-v1.ts'
import type { Node, Pod } from '#api/gen/core-v1.ts'
import { nodes, pods } from '#api/gen/resources.ts'
import { notFound } from '#api/meta/status.ts'
import { nodeNameOf } from '../authorize/node.ts'
import { references } from '../authorize/node-graph.ts'
import type { AdmissionRequest, Registry } from '../step.ts'
import { isMirror, mirrorAnnotation } from './service-account.ts'
import { type AdmissionStep, objectOf, oldOf, refusal } from './step.ts'

/** A node writes about itself and the pods bound to it, and nothing that would draw other pods to it. */
export function nodeRestriction(registry: Registry): AdmissionStep {
  return {
    name: 'NodeRestriction',
    validate(request) {
      const { attributes } = request
      const node = nodeNameOf(attributes.user)
      if (node === undefined) return
      if (node === '') {
        throw refusal(request, `could not determine node from user ${JSON.stringify(attributes.user.name)}`)
      }
      switch (`${attributes.group}/${attributes.resource}`) {
        case '/pods':
          return admitPod(registry, node, request)
        case '/nodes':
          return admitNode(node, request)
        case '/serviceaccounts':
          if (attributes.subresource === 'token') admitToken(registry, node, request)
          return
        case 'coordination.k8s.io/leases':
          return admitLease(node, request)
        default:
      }
    },
  }
}

function existing(registry: Registry, { attributes }: AdmissionRequest): Pod {
  const pod = registry.get(pods, attributes.namespace, attributes.name)
  if (pod === undefined) throw notFound(pods, attributes.name)
  return pod
}

function admitPod(registry: Registry, node: string, request: AdmissionRequest): void {
  const { attributes, operation } = request
  switch (attributes.subresource) {
    case '':
      if (operation === 'CREATE') {
        admitMirrorPod(registry, node, request)
        return
      }
      if (operation === 'DELETE') {
        if (existing(registry, request).spec.nodeName === node) return
        throw refusal(request, `node "${node}" can only delete pods with spec.nodeName set to itself`)
      }
      throw refusal(
        request,
        `unexpected operation "${operation}", node "${node}" can only create and delete mirror pods`,
      )
    case 'status': {
      const old = oldOf(request, pods)
      if (old?.spec.nodeName !== node) {
        throw refusal(request, `node "${node}" can only update pod status for pods with spec.nodeName set to itself`)
      }
      if (changedKeys(objectOf(request, pods)?.metadata.labels, old.metadata.labels).length > 0) {
        throw refusal(request, `node "${node}" cannot update labels through pod status`)
      }
      return
    }
    case 'eviction':
      if (existing(registry, request).spec.nodeName === node) return
      throw refusal(request, `node ${node} can only evict pods with spec.nodeName set to itself`)
    default:
      throw refusal(
        request,
        `unexpected pod subresource "${attributes.subresource}", only 'status' and 'eviction' are allowed`,
      )
  }
}

function admitMirrorPod(registry: Registry, node: string, request: AdmissionRequest): void {
  const pod = objectOf(request, pods)
  if (pod === undefined) return
  if (!isMirror(pod)) {
    throw refusal(
      request,
      `pod does not have "${mirrorAnnotation}" annotation, node "${node}" can only create mirror pods`,
    )
  }
  if (pod.spec.nodeName !== node) {
    throw refusal(request, `node "${node}" can only create pods with spec.nodeName set to itself`)
  }
  const [owner, ...more] = pod.metadata.ownerReferences ?? []
  const isItself = owner?.apiVersion === 'v1' && owner.kind === 'Node' && owner.name === node && more.length === 0
  if (!isItself) throw refusal(request, `node "${node}" can only create pods with an owner reference set to itself`)
  if (!owner.controller) {
    throw refusal(request, `node "${node}" can only create pods with a controller owner reference set to itself`)
  }
  if (owner.blockOwnerDeletion) {
    throw refusal(request, `node "${node}" must not set blockOwnerDeletion on an owner reference`)
  }
  const present = registry.get(nodes, '', node)
  if (present === undefined) throw notFound(nodes, node)
  if (owner.uid !== present.metadata.uid) {
    throw refusal(request, `node ${node} UID mismatch: expected ${owner.uid} got ${present.metadata.uid}`)
  }
  const named = [...references(pod)].map((key) => key.split('/')[0])
  for (const [kind, words] of [
    ['serviceaccount', 'a service account'],
    ['secret', 'secrets'],
    ['configmap', 'configmaps'],
  ] as const) {
    if (named.includes(kind)) throw refusal(request, `node "${node}" can not create pods that reference ${words}`)
  }
  if (pod.spec.volumes?.some((v) => v.persistentVolumeClaim)) {
    throw refusal(request, `node "${node}" can not create pods that reference persistentvolumeclaims`)
  }
}

function admitNode(node: string, request: AdmissionRequest): void {
  const { operation, attributes } = request
  const next = objectOf<Node>(request, nodes)
  const name = operation === 'CREATE' ? (next?.metadata.name ?? '') : attributes.name
  if (name !== node) throw refusal(request, `node "${node}" is not allowed to modify node "${name}"`)
  if (next === undefined) return
  const old = oldOf<Node>(request, nodes)
  const labels = changedKeys(next.metadata.labels, old?.metadata.labels).filter(isForbiddenLabel)
  if (operation === 'CREATE') {
    if (labels.length === 0) return
    throw refusal(request, `node "${node}" is not allowed to set the following labels: ${labels.toSorted().join(', ')}`)
  }
  if (old && JSON.stringify(next.spec?.taints ?? []) !== JSON.stringify(old.spec?.taints ?? [])) {
    throw refusal(request, `node "${node}" is not allowed to modify taints`)
  }
  if (labels.length > 0) throw refusal(request, `is not allowed to modify labels: ${labels.toSorted().join(', ')}`)
}

function admitToken(registry: Registry, node: string, request: AdmissionRequest): void {
  const ref = (request.object as TokenRequest | undefined)?.spec?.boundObjectRef
  if (ref?.apiVersion !== 'v1' || ref.kind !== 'Pod' || !ref.name) {
    throw refusal(request, 'node requested token not bound to a pod')
  }
  if (!ref.uid) throw refusal(request, 'node requested token with a pod binding without a uid')
  const pod = registry.get(pods, request.attributes.namespace, ref.name)
  if (pod === undefined) throw notFound(pods, ref.name)
  if (pod.metadata.uid !== ref.uid) {
    throw refusal(
      request,
      `the UID in the bound object reference (${ref.uid}) does not match the UID in record. The object might have been deleted and then recreated`,
    )
  }
  if (pod.spec.nodeName !== node) {
    throw refusal(request, 'node requested token bound to a pod scheduled on a different node')
  }
}

function admitLease(node: string, request: AdmissionRequest): void {
  const { namespace, name } = request.attributes
  if (namespace !== 'kube-node-lease') {
    throw refusal(request, 'can only access leases in the "kube-node-lease" system namespace')
  }
  const own = request.operation === 'CREATE' ? request.object?.metadata.name : name
  if (own !== node) throw refusal(request, 'can only access node lease with the same name as the requesting node')
}

type Labels = Readonly<Record<string, string>> | undefined
const changedKeys = (next: Labels, old: Labels): string[] =>
  [...new Set([...Object.keys(next ?? {}), ...Object.keys(old ?? {})])].filter((key) => next?.[key] !== old?.[key])

/** What kubelets may say about their node in Kubernetes' own label names. */
const kubeletLabels = new Set([
  'kubernetes.io/hostname',
  'kubernetes.io/os',
  'kubernetes.io/arch',
  'beta.kubernetes.io/os',
  'beta.kubernetes.io/arch',
  'beta.kubernetes.io/instance-type',
  'node.kubernetes.io/instance-type',
  'topology.kubernetes.io/region',
  'topology.kubernetes.io/zone',
  'failure-domain.beta.kubernetes.io/region',
  'failure-domain.beta.kubernetes.io/zone',
])
const within = (domain: string, parent: string): boolean => domain === parent || domain.endsWith(`.${parent}`)

/** By such labels people steer pods that matter to nodes they trust; a node must not put them on itself. */
function isForbiddenLabel(key: string): boolean {
  const domain = key.includes('/') ? (key.split('/')[0] ?? '') : ''
  if (within(domain, 'node-restriction.kubernetes.io')) return true
  if (!within(domain, 'kubernetes.io') && !within(domain, 'k8s.io')) return false
  if (kubeletLabels.has(key)) return false
  return !within(domain, 'kubelet.kubernetes.io') && !within(domain, 'node.kubernetes.io')
}

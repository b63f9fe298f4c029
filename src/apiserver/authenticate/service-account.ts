import { nodes, pods, secrets, serviceAccounts } from '#api/gen/resources.ts'
import type { KubeObject } from '#api/meta/resource.ts'
import type { Clock } from '#base/clock.ts'
import type { Registry, User } from '../step.ts'
import type { ObjectReference, TokenClaims } from './token.ts'

/** After its pod or secret is marked for deletion a token goes on for this long: the pod's last words need it. */
const deletionLeewayMs = 60_000

/** The user a token stands for, or undefined when an object it is bound to is gone or is another one by that name. */
export function serviceAccountUser(
  { id, binding }: TokenClaims,
  registry: Pick<Registry, 'get'>,
  clock: Clock,
): User | undefined {
  const { namespace, serviceaccount, pod, node, secret } = binding
  const present = (object: KubeObject | undefined, { uid }: ObjectReference): boolean => {
    if (object === undefined || object.metadata.uid !== uid) return false
    const deletion = object.metadata.deletionTimestamp
    return deletion === undefined || clock.now() < Date.parse(deletion) + deletionLeewayMs
  }
  if (!present(registry.get(serviceAccounts, namespace, serviceaccount.name), serviceaccount)) return undefined
  if (pod && !present(registry.get(pods, namespace, pod.name), pod)) return undefined
  if (secret && !present(registry.get(secrets, namespace, secret.name), secret)) return undefined
  // With a pod the node is only told, not bound to: its Node may come and go while the pod runs.
  if (node && !pod && !present(registry.get(nodes, '', node.name), node)) return undefined
  const extra: Record<string, string[]> = { 'authentication.kubernetes.io/credential-id': [`JTI=${id}`] }
  if (pod) {
    extra['authentication.kubernetes.io/pod-name'] = [pod.name]
    extra['authentication.kubernetes.io/pod-uid'] = [pod.uid]
  }
  if (node) {
    extra['authentication.kubernetes.io/node-name'] = [node.name]
    extra['authentication.kubernetes.io/node-uid'] = [node.uid]
  }
  return {
    name: `system:serviceaccount:${namespace}:${serviceaccount.name}`,
    uid: serviceaccount.uid,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`],
    extra,
  }
}

import type { Subject } from '#api/gen/rbac-v1.ts'
import type { LoopContext } from '#reconcile/loop.ts'
import type { Part } from '#reconcile/manager.ts'
import type { ControllerAccount } from './accounts.ts'
import { certificateController } from './certificate/certificate.ts'
import type { SigningKey } from './certificate/sign.ts'
import { daemonSetController } from './daemon-set/daemon-set.ts'
import { deploymentController } from './deployment/deployment.ts'
import { endpointSliceController } from './endpoint-slice/endpoint-slice.ts'
import { endpointSliceMirrorController } from './endpoint-slice-mirror/endpoint-slice-mirror.ts'
import { endpointsController } from './endpoints/endpoints.ts'
import { garbageCollector } from './garbage-collector/garbage-collector.ts'
import { gatewayController } from './gateway/gateway.ts'
import { loadBalancerController } from './load-balancer/load-balancer.ts'
import { namespaceController } from './namespace/namespace.ts'
import { nodeIpamController } from './node-ipam/node-ipam.ts'
import { parseNodeRange } from './node-ipam/plan.ts'
import { nodeLifecycleController } from './node-lifecycle/node-lifecycle.ts'
import { taintEvictionController } from './node-lifecycle/taint-eviction.ts'
import { podGcController } from './pod-gc/pod-gc.ts'
import { replicaSetController } from './replica-set/replica-set.ts'
import { rootCaController } from './root-ca/root-ca.ts'
import { serviceAccountController } from './service-account/service-account.ts'

export interface ControllersOptions {
  /** The context of a controller: its client is that of the service account of this name in kube-system. */
  readonly contextOf: (account: ControllerAccount) => LoopContext
  /** The cluster's certificate authority, PEM: signs nodes' certificates, and is what pods trust. */
  readonly authority: SigningKey
  /** The pod networks, one a family: `10.244.0.0/16`, `fd00:10:244::/56`. */
  readonly clusterCidrs: readonly string[]
  /** What Services of type LoadBalancer are given addresses from: `172.30.0.200-172.30.0.250`. */
  readonly loadBalancerPools: readonly string[]
  /** Who may read the certificates of Gateways; absent: the nodes. */
  readonly certificateReaders?: readonly Subject[]
  /** Which run: `*` all, `NAME` this one, `-NAME` not this one (kube-controller-manager's flag of that name). Default `*`. */
  readonly wanted?: readonly string[]
}

/** Length of a node's prefix in the cluster's network (upstream's defaults for IPv4 and IPv6). */
const nodePrefix = { v4: 24, v6: 64 }

interface Entry {
  /** In logs, health and events. */
  readonly name: string
  /** Whose rights it has: several parts may share an account, as upstream's do. */
  readonly account: ControllerAccount
  create(context: LoopContext, options: ControllersOptions): Part
}

/** Every controller, in the order they start: what others need to begin comes first. Stopping goes backwards. */
const entries: readonly Entry[] = [
  {
    name: 'node-ipam-controller',
    account: 'node-controller',
    create: (context, { clusterCidrs }) =>
      nodeIpamController(
        clusterCidrs.map((cidr) => parseNodeRange(cidr, cidr.includes(':') ? nodePrefix.v6 : nodePrefix.v4)),
      )(context),
  },
  {
    name: 'certificate-controller',
    account: 'certificate-controller',
    create: (context, { authority }) => certificateController(authority)(context),
  },
  { name: 'service-account-controller', account: 'service-account-controller', create: serviceAccountController },
  {
    name: 'root-ca-cert-publisher',
    account: 'root-ca-cert-publisher',
    create: (context, { authority }) => rootCaController(authority.certificate)(context),
  },
  { name: 'namespace-controller', account: 'namespace-controller', create: namespaceController },
  { name: 'deployment-controller', account: 'deployment-controller', create: deploymentController },
  { name: 'replicaset-controller', account: 'replicaset-controller', create: replicaSetController },
  // The name is in its events, where upstream writes it in one word.
  { name: 'daemonset-controller', account: 'daemon-set-controller', create: daemonSetController },
  { name: 'endpoint-slice-controller', account: 'endpointslice-controller', create: endpointSliceController },
  {
    name: 'endpoint-slice-mirroring-controller',
    account: 'endpointslicemirroring-controller',
    create: endpointSliceMirrorController,
  },
  { name: 'endpoint-controller', account: 'endpoint-controller', create: endpointsController },
  {
    name: 'service-controller',
    account: 'service-controller',
    create: (context, { loadBalancerPools }) => loadBalancerController(loadBalancerPools)(context),
  },
  {
    name: 'gateway-controller',
    account: 'gateway-controller',
    create: (context, { certificateReaders }) => gatewayController(context, certificateReaders),
  },
  {
    name: 'node-lifecycle-controller',
    account: 'node-controller',
    create: (context) => nodeLifecycleController()(context),
  },
  { name: 'taint-eviction-controller', account: 'node-controller', create: taintEvictionController },
  {
    name: 'pod-garbage-collector',
    account: 'pod-garbage-collector',
    create: (context) => podGcController()(context),
  },
  { name: 'generic-garbage-collector', account: 'generic-garbage-collector', create: garbageCollector },
]

/** The controllers as parts for a Manager, in start order. Throws for networks that are none, and names of nobody. */
export function createControllers(options: ControllersOptions): Part[] {
  return wantedOf(options.wanted ?? ['*']).map(({ name, account, create }) =>
    create({ ...options.contextOf(account), name }, options),
  )
}

/** A name that is taken out is out, wherever it stands. */
function wantedOf(list: readonly string[]): readonly Entry[] {
  const known = new Set(entries.map(({ name }) => name))
  for (const word of list) {
    const name = word.replace(/^-/, '')
    if (word !== '*' && !known.has(name))
      throw new RangeError(`"${name}" is not in the list of known controllers: ${[...known].join(', ')}`)
  }
  return entries.filter(({ name }) => !list.includes(`-${name}`) && (list.includes('*') || list.includes(name)))
}

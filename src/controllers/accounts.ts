/**
 * The service accounts in kube-system under which the controllers run, under upstream's names. By themselves, so that
 * the thread which only issues their tokens need not load the controllers.
 */
export const controllerAccounts = [
  'certificate-controller',
  'daemon-set-controller',
  'deployment-controller',
  'endpoint-controller',
  'endpointslice-controller',
  'endpointslicemirroring-controller',
  'gateway-controller',
  'generic-garbage-collector',
  'namespace-controller',
  'node-controller',
  'pod-garbage-collector',
  'replicaset-controller',
  'root-ca-cert-publisher',
  'service-account-controller',
  'service-controller',
] as const

export type ControllerAccount = (typeof controllerAccounts)[number]

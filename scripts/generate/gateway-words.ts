/** What `kubectl explain` says of the Gateway API's kinds and their main fields: a sentence of ours each. */
export const kindWords: Readonly<Record<string, string>> = {
  BackendTLSPolicy: 'How a gateway opens TLS to the backends of a Service: which name it asks for and whom it trusts.',
  GatewayClass: 'A kind of gateway that this cluster offers, and the controller that serves it.',
  Gateway: 'An entry into the cluster: addresses and listeners that routes attach to.',
  GRPCRoute: 'Where gRPC calls go, by host name, service, method and headers.',
  HTTPRoute: 'Where HTTP requests go, by host name, path, headers, query and method, and what is changed on the way.',
  ListenerSet: 'More listeners for a gateway, kept by whoever needs them.',
  ReferenceGrant: 'Permission for objects of other namespaces to refer to objects of this one.',
  TCPRoute: 'Where the TCP connections of a listener go.',
  TLSRoute: 'Where TLS connections go, by the server name that the client asks for.',
  UDPRoute: 'Where the UDP packets of a listener go.',
  XBackend: 'A backend beyond Services: an outside host name, with how to reach it. Experimental.',
  XBackendTrafficPolicy:
    'How a gateway treats the backends of a Service: retry budget, session persistence. Experimental.',
  XMesh: 'A mesh that this cluster offers, and the controller that serves it. Experimental.',
}

/** `Kind.spec.field` or `*.spec.field` -> sentence. */
export const fieldWords: Readonly<Record<string, string>> = {
  '*.spec': 'What is wanted.',
  '*.status': 'What the controllers have seen and done.',
  '*.spec.parentRefs': 'The gateways, listeners or Services that this route attaches to.',
  '*.spec.hostnames': 'Host names that this route is for; none: those of the listener.',
  '*.spec.rules': 'What matches and where it goes; the most specific match wins.',
  '*.spec.rules.matches': 'Any one of these must match; within one, every condition.',
  '*.spec.rules.filters': 'What is done to requests and responses of this rule.',
  '*.spec.rules.backendRefs': 'Where requests go, shared out by weight.',
  '*.spec.rules.name': 'A name of the rule, unique within the route.',
  '*.spec.rules.timeouts': 'How long a request, and one attempt at a backend, may take.',
  '*.spec.rules.retry': 'Which failures are tried again, how often and after how long.',
  '*.spec.rules.sessionPersistence': 'Keeps a session with the backend that it began with.',
  '*.status.parents': 'One entry for each parent and the controller that serves it.',
  '*.status.conditions': 'What is true of this object now.',
  'Gateway.spec.gatewayClassName': 'The GatewayClass that this gateway is of.',
  'Gateway.spec.listeners': 'Ports, protocols and host names that are listened on.',
  'Gateway.spec.addresses': 'Addresses asked for; none: any that the controller gives.',
  'Gateway.spec.infrastructure': 'Labels, annotations and parameters for what is made for this gateway.',
  'Gateway.spec.tls': 'TLS of the whole gateway: whom it trusts in front, and who it is behind.',
  'Gateway.spec.allowedListeners': 'Whose ListenerSets may add listeners to this gateway.',
  'Gateway.status.addresses': 'Addresses that this gateway is reached at.',
  'Gateway.status.listeners': 'What is true of each listener now.',
  'GatewayClass.spec.controllerName': 'The controller that serves gateways of this class; it cannot be changed.',
  'GatewayClass.spec.parametersRef': 'An object with settings of the class.',
  'GatewayClass.spec.description': 'What the class is for, in words.',
  'GatewayClass.status.supportedFeatures': 'Features of the Gateway API that the controller has, in order of name.',
  'ListenerSet.spec.parentRef': 'The gateway that gets these listeners.',
  'ListenerSet.spec.listeners': 'Ports, protocols and host names that are listened on.',
  'ReferenceGrant.spec.from': 'Whose references are trusted: kind and namespace.',
  'ReferenceGrant.spec.to': 'What may be referred to: kind, and name if only one.',
  'BackendTLSPolicy.spec.targetRefs': 'The Services, or ports of them, that this is for.',
  'BackendTLSPolicy.spec.validation':
    'The name that the backend must prove, and the authorities that may vouch for it.',
  'BackendTLSPolicy.spec.options': 'Settings that only some controllers know.',
}

export const deprecationWords = (kind: string, version: string, instead: string): string =>
  `${version} of ${kind} is deprecated and will go in a later release of the Gateway API; use ${instead}`

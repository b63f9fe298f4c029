/** Says of which Service an EndpointSlice is. */
export const serviceNameLabel = 'kubernetes.io/service-name'

/** On the slices and Endpoints of a Service without a cluster address. */
export const headlessLabel = 'service.kubernetes.io/headless'

import type { Container, Pod } from '#api/gen/core-v1.ts'

/** Where in the pod an event's container is: `spec.containers{web}`. */
export function fieldPathOf({ spec }: Pod, { name }: Pick<Container, 'name'>): string {
  const init = spec.initContainers?.some((c) => c.name === name) === true
  return `spec.${init ? 'initContainers' : 'containers'}{${name}}`
}

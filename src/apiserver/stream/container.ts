import type { Pod } from '#api/gen/core-v1.ts'
import { badRequest } from '#api/meta/status.ts'

const names = (containers: readonly { readonly name: string }[] | undefined): string =>
  `[${(containers ?? []).map((c) => c.name).join(' ')}]`

/** The container a request is about: the one it names, or the only one. Throws BadRequest in upstream's words. */
export function chooseContainer({ metadata, spec }: Pod, wanted: string | undefined): string {
  const all = [...spec.containers, ...(spec.initContainers ?? []), ...(spec.ephemeralContainers ?? [])]
  if (wanted !== undefined && wanted !== '') {
    if (all.some((c) => c.name === wanted)) return wanted
    throw badRequest(`container ${wanted} is not valid for pod ${metadata.name}`)
  }
  const [only, another] = spec.containers
  if (only !== undefined && another === undefined) return only.name
  const init = spec.initContainers?.length ? ` or one of the init containers: ${names(spec.initContainers)}` : ''
  const ephemeral = spec.ephemeralContainers?.length
    ? ` or one of the ephemeral containers: ${names(spec.ephemeralContainers)}`
    : ''
  throw badRequest(
    `a container name must be specified for pod ${metadata.name}, choose one of: ${names(spec.containers)}${init}${ephemeral}`,
  )
}

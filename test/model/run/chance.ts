import type { Endpoint } from '../cluster.ts'
import type { Chooser } from '../journey.ts'
import { natPorts } from '../nat.ts'
import type { ClusterMaps } from './cluster-maps.ts'

/** The kernel has chosen already. `isChosen`: what the program said itself, where it can. */
export const chosenBy = (maps: ClusterMaps, isChosen: (endpoint: Endpoint) => boolean): Chooser => ({
  backend: (candidates, question) => {
    const to = maps.translation(question)
    const same = candidates.find(({ address, port }) => to?.destination === address && to.destinationPort === port)
    // Where nothing was written, the program says what it would have been.
    return same ?? candidates.find(isChosen) ?? (candidates[0] as Endpoint)
  },
  port: (wanted, isFree, question) => {
    if (isFree(wanted)) return wanted
    const port = maps.translation(question)?.sourcePort
    return port !== undefined && port >= natPorts.first && isFree(port) ? port : undefined
  },
})

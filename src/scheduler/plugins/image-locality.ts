import { type Plugin, scoreMax } from '../plugin.ts'

const mega = 1024 * 1024
/** Less than this is fetched in no time. */
const bytesMin = 23 * mega
/** More than this per container makes no more difference. */
const bytesMax = 1000 * mega

/** Prefers nodes that have the images; one that few nodes have counts for less, or all pods would flock there. */
export const imageLocality: Plugin = {
  name: 'ImageLocality',
  weight: 1,
  judge({ pod }, { snapshot }) {
    const { containers, initContainers = [], volumes = [] } = pod.spec
    const images = [
      ...[...initContainers, ...containers].map((c) => c.image),
      ...volumes.map((v) => v.image?.reference),
    ].flatMap((image) => (image === undefined || image === '' ? [] : [withTag(image)]))
    if (images.length === 0) return undefined
    return {
      score(node) {
        let sum = 0
        for (const image of images) {
          const bytes = node.images.get(image)
          if (bytes !== undefined) sum += Math.floor(bytes * (snapshot.nodesWithImage(image) / snapshot.nodes.length))
        }
        const max = bytesMax * images.length
        const clamped = Math.min(Math.max(sum, bytesMin), max)
        return Math.floor((scoreMax * (clamped - bytesMin)) / (max - bytesMin))
      },
    }
  },
}

const withTag = (image: string): string =>
  image.lastIndexOf(':') <= image.lastIndexOf('/') ? `${image}:latest` : image

import type { PodTemplateSpec } from '../gen/core-v1.ts'
import type { LabelSelector } from '../gen/meta-v1.ts'
import type { Column } from '../kind.ts'
import { wideColumn } from '../meta/columns.ts'
import type { KubeObject } from '../meta/resource.ts'
import { formatSelector, SelectorError, selectorFrom } from '../meta/selector.ts'

interface Workload extends KubeObject {
  spec: { template: PodTemplateSpec; selector: LabelSelector }
}

/** `app=web,tier in (a,b)`; upstream has different words for nothing and for what cannot be read. */
export function selectorText(selector: LabelSelector | undefined, unreadable = '<error>', nothing = '<none>'): string {
  if (selector === undefined) return nothing
  try {
    return formatSelector(selectorFrom(selector)) || nothing
  } catch (error) {
    if (error instanceof SelectorError) return unreadable
    throw error
  }
}

const containers = (workload: Workload) => workload.spec.template?.spec?.containers ?? []

/** The last three columns of every workload. */
export const templateColumns = (unreadable: string, nothing: string): readonly Column<Workload>[] => [
  wideColumn('Containers', 'Names of the containers in the template.', (workload) =>
    containers(workload)
      .map(({ name }) => name)
      .join(','),
  ),
  wideColumn('Images', 'Images of the containers in the template.', (workload) =>
    containers(workload)
      .map(({ image }) => image ?? '')
      .join(','),
  ),
  wideColumn('Selector', 'Labels of its pods.', ({ spec }) => selectorText(spec.selector, unreadable, nothing)),
]

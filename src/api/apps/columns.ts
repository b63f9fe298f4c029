import type { PodTemplateSpec } from '../gen/core-v1.ts'
import type { LabelSelector } from '../gen/meta-v1.ts'
import type { Column } from '../kind.ts'
import { wideColumn } from '../meta/columns.ts'
import type { KubeObject } from '../meta/resource.ts'
import { formatSelector, SelectorError, selectorFrom } from '../meta/selector.ts'

interface Workload extends KubeObject {
  spec: { template: PodTemplateSpec; selector: LabelSelector }
}

/** `app=web,tier in (a,b)`; what cannot be read is shown as upstream shows it. */
export function selectorText(selector: LabelSelector | undefined): string {
  if (selector === undefined) return '<none>'
  try {
    return formatSelector(selectorFrom(selector)) || '<none>'
  } catch (error) {
    if (error instanceof SelectorError) return '<error>'
    throw error
  }
}

const containers = (workload: Workload) => workload.spec.template?.spec?.containers ?? []

/** The last three columns of every workload. */
export const templateColumns: readonly Column<Workload>[] = [
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
  wideColumn('Selector', 'Labels of its pods.', ({ spec }) => selectorText(spec.selector)),
]

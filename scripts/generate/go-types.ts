/** Reads Go type declarations (gofmt-ed sources of the published API modules) into plain data. No prose is kept. */

export interface GoField {
  readonly goName: string
  /** The Go type as written: `*Foo`, `[]Foo`, `map[string]Foo`, `metav1.Time`. */
  readonly goType: string
  readonly json: string
  readonly inline: boolean
  readonly omitempty: boolean
  readonly omitzero: boolean
  readonly optionalMarker: boolean
  readonly proto: number | undefined
  readonly patchStrategy: string | undefined
  readonly patchMergeKey: string | undefined
  readonly markers: ReadonlyMap<string, string[]>
}

export type GoType =
  | {
      readonly kind: 'struct'
      readonly name: string
      readonly fields: GoField[]
      readonly markers: ReadonlyMap<string, string[]>
    }
  | {
      readonly kind: 'alias'
      readonly name: string
      readonly target: string
      readonly markers: ReadonlyMap<string, string[]>
    }

export interface GoPackage {
  readonly types: Map<string, GoType>
  /** Typed string constants: type name -> values. */
  readonly constants: Map<string, string[]>
  /** Import alias -> import path. */
  readonly imports: Map<string, string>
}

export function parseGoPackage(sources: readonly string[]): GoPackage {
  const pkg: GoPackage = { types: new Map(), constants: new Map(), imports: new Map() }
  for (const source of sources) parseGoSource(source, pkg)
  return pkg
}

function parseGoSource(source: string, pkg: GoPackage): void {
  const lines = source.split('\n')
  let comments: string[] = []
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] ?? ''
    const imported = /^\s+(?:(\w+) )?"([\w./-]+)"$/.exec(line)
    if (imported?.[2]) pkg.imports.set(imported[1] ?? imported[2].split('/').at(-1) ?? '', imported[2])
    const constant = /^\s*(?:const )?\w+\s+(\w+)\s+=\s+"([^"]*)"/.exec(line)
    if (constant?.[1] && constant[2] !== undefined) {
      const values = pkg.constants.get(constant[1]) ?? []
      if (!values.includes(constant[2])) values.push(constant[2])
      pkg.constants.set(constant[1], values)
    }
    if (line.startsWith('//')) {
      comments.push(line)
      continue
    }
    const struct = /^type (\w+) struct ?\{(\})?$/.exec(line)
    if (struct?.[1]) {
      const end = struct[2] ? i : lines.indexOf('}', i)
      const fields = parseFields(lines.slice(i + 1, end))
      pkg.types.set(struct[1], { kind: 'struct', name: struct[1], fields, markers: parseMarkers(comments) })
      i = end
    } else {
      const alias = /^type (\w+) (?:= )?([\w.[\]*]+)$/.exec(line)
      if (alias?.[1] && alias[2])
        pkg.types.set(alias[1], { kind: 'alias', name: alias[1], target: alias[2], markers: parseMarkers(comments) })
    }
    // A blank line between a marker block and its doc comment is usual, so markers survive one blank line.
    if (line !== '' || lines[i + 1]?.startsWith('//') === false) comments = line === '' ? comments : []
  }
}

function parseFields(lines: readonly string[]): GoField[] {
  const fields: GoField[] = []
  let comments: string[] = []
  for (const raw of lines) {
    const line = raw.trim()
    if (line.startsWith('//')) {
      comments.push(line)
      continue
    }
    const match = /^(?:(\w+)\s+)?([\w.[\]*]+)\s+`([^`]*)`/.exec(line)
    if (match?.[2] && match[3] !== undefined) {
      const field = parseField(match[1], match[2], match[3], parseMarkers(comments))
      if (field) fields.push(field)
    }
    comments = []
  }
  return fields
}

function parseField(
  goName: string | undefined,
  goType: string,
  tag: string,
  markers: Map<string, string[]>,
): GoField | undefined {
  const tags = new Map([...tag.matchAll(/(\w+):"([^"]*)"/g)].map((m) => [m[1] ?? '', m[2] ?? '']))
  const [json = '', ...options] = (tags.get('json') ?? '').split(',')
  if (json === '-') return undefined
  const proto = /^\w+,(\d+)/.exec(tags.get('protobuf') ?? '')?.[1]
  const inline = options.includes('inline') || (goName === undefined && json === '')
  return {
    goName: goName ?? goType.split('.').at(-1) ?? goType,
    goType,
    json: json === '' ? (goName ?? '') : json,
    inline,
    omitempty: options.includes('omitempty'),
    omitzero: options.includes('omitzero'),
    optionalMarker: markers.has('optional') || markers.has('k8s:optional'),
    proto: proto === undefined ? undefined : Number(proto),
    patchStrategy: tags.get('patchStrategy'),
    patchMergeKey: tags.get('patchMergeKey'),
    markers,
  }
}

/** `// +listType=map` becomes listType -> ['map']; markers without a value map to ['']. */
function parseMarkers(comments: readonly string[]): Map<string, string[]> {
  const markers = new Map<string, string[]>()
  for (const comment of comments) {
    const match = /^\/\/\s*\+([\w:.-]+)(?:\([^)]*\))?(?:=(.*))?$/.exec(comment)
    if (!match?.[1]) continue
    markers.set(match[1], [...(markers.get(match[1]) ?? []), (match[2] ?? '').trim()])
  }
  return markers
}

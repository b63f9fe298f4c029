/** Reads .proto text of published modules: prose taken out, message and field numbers kept. */

/** The same definitions without comments, options and blank lines. */
export function stripProto(text: string): string {
  const bare = text.replace(/"(?:[^"\\]|\\.)*"|\/\/[^\n]*|\/\*[\s\S]*?\*\//g, (token) =>
    token.startsWith('"') ? token : '',
  )
  return bare
    .split('\n')
    .map((line) => line.trimEnd().replaceAll('    ', '  '))
    .filter((line) => line.trim() !== '' && !/^option /.test(line))
    .map((line) => (/^(service|message|enum) /.test(line) ? `\n${line}` : line))
    .join('\n')
}

export interface ProtoField {
  readonly name: string
  readonly number: number
  /** As written: `string`, `.k8s.io.api.core.v1.Pod`, `map<string, string>`. */
  readonly type: string
  readonly repeated: boolean
}

/** Message name -> fields, of a file without nested messages (what go-to-protobuf writes). */
export function parseProtoMessages(text: string): Map<string, ProtoField[]> {
  const messages = new Map<string, ProtoField[]>()
  for (const [, name, body] of stripProto(text).matchAll(/message (\w+) \{([^{}]*)\}/g)) {
    if (name === undefined || body === undefined) continue
    const fields: ProtoField[] = []
    for (const [, label, type, field, number] of body.matchAll(
      /(optional |repeated )?(map<[^>]*>|[\w.]+) (\w+) = (\d+)[^;]*;/g,
    ))
      fields.push({ name: field ?? '', number: Number(number), type: type ?? '', repeated: label === 'repeated ' })
    messages.set(name, fields)
  }
  return messages
}

/** One field in the table. Keys are short because there are thousands. See src/api/schema/table.ts for their meaning. */
export interface Row {
  n: string
  t: string
  p?: number
  r?: 1
  m?: 1
  q?: 1
  s?: 1
  i?: 1
  ptr?: 1
  w?: 1
  g?: string
  l?: string
  k?: string[]
  mt?: string
  ps?: string
  mk?: string
  d?: unknown
  e?: string[]
}

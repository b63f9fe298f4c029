/**
 * Replaces `$(NAME)` by `lookup`'s value; an unknown name stays as written, `$$` is a dollar sign (Kubernetes
 * third_party/forked/golang/expansion).
 */
export function expand(text: string, lookup: (name: string) => string | undefined): string {
  let out = ''
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== '$' || i + 1 >= text.length) {
      out += text[i]
      continue
    }
    const next = text[i + 1]
    if (next === '$') {
      out += '$'
      i++
      continue
    }
    const close = next === '(' ? text.indexOf(')', i + 2) : -1
    if (close < 0) {
      out += '$'
      continue
    }
    const name = text.slice(i + 2, close)
    out += lookup(name) ?? `$(${name})`
    i = close
  }
  return out
}
